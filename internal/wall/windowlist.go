package wall

import (
	"cmp"
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/sequence"
)

// This file has what the status tells of the windows.

// windowsCheck is the check of the findings about doors with max_windows.
const windowsCheck = "windows"

// crowdedFor is how long a door is said to be crowded after a client got no window.
const crowdedFor = time.Minute

// findings returns a finding for each door that has as many windows of an IP version as it
// can have, or has no room for the clients of some network.
func (ws *windows) findings(f *policy) (found []doctor.Finding) {
	if f == nil {
		return nil
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := time.Now()
	limit := f.config.Wall.MaxWindows
	for i := range f.config.Doors {
		door := f.config.Doors[i].Name
		for version, all := range map[int]netip.Addr{4: netip.IPv4Unspecified(), 6: netip.IPv6Unspecified()} {
			open := ws.record.Count(f.ids[i], netip.PrefixFrom(all, 0))
			finding := doctor.Finding{Check: windowsCheck, Severity: doctor.Error, Door: door, IPVersion: version}
			switch {
			case open >= limit:
				finding.Problem = fmt.Sprintf("The door has %d open windows for IPv%d, as many as max_windows allows. A client that knocks now gets none.", limit, version)
				finding.Cure = "Wait until windows end, close some, or write a larger max_windows into the wall block."
			case now.Before(ws.crowded[doorSet{door, version == 4}].Add(crowdedFor)):
				finding.Severity = doctor.Warning
				finding.Problem = fmt.Sprintf("The door has %d open windows for IPv%d, of %d that max_windows allows. "+
					"So many are of clients of one network that others of that network get none: the rest is kept for other networks.", open, version, limit)
				finding.Cure = "Look where they come from with `knockwall status --door " + door + "`. If all are yours, write a larger max_windows into the wall block."
			default:
				continue
			}
			found = append(found, finding)
		}
	}
	slices.SortStableFunc(found, func(a, b doctor.Finding) int { return cmp.Or(cmp.Compare(a.Door, b.Door), a.IPVersion-b.IPVersion) })
	if now.Before(ws.unreadUntil) {
		found = append(found, doctor.Finding{Check: windowsCheck, Severity: doctor.Warning,
			Problem: "The daemon before this one did not stop in order, and had more windows than can be read in a moment. " +
				"Those that were not read admit until they end, and the status does not show them.",
			Cure: "Wait until they end."})
	}
	return found
}

// openAt returns how many windows each door has open.
func (ws *windows) openAt(f *policy) map[string]int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	open := make(map[string]int, len(f.ids))
	for i := range f.config.Doors {
		open[f.config.Doors[i].Name] = ws.record.Total(f.ids[i])
	}
	return open
}

// status returns the open windows that are wanted, sorted by door and source, and the place of
// the last of them if there are more.
func (ws *windows) status(wanted WindowQuery) (all []WindowStatus, next WindowPlace) {
	first := lastOnTop{}
	more := false
	ws.each(func(door string, win sequence.Window, left time.Duration) {
		place := WindowPlace{door, win.Source()}
		if !wanted.has(place) {
			return
		}
		full := wanted.Limit > 0 && len(first) == wanted.Limit
		more = more || full
		if full && place.compare(first[0].place()) > 0 {
			return
		}
		s := WindowStatus{Door: door, Source: place.Source, LeftSeconds: seconds(left), Connections: win.Connections()}
		by := method.ParseOpener(win.Opener())
		s.Person, s.Key, s.Origin = by.Name, by.Key, by.Origin
		switch {
		case full:
			first[0] = s
			heap.Fix(&first, 0)
		case wanted.Limit > 0:
			heap.Push(&first, s)
		default:
			first = append(first, s)
		}
	})
	slices.SortFunc(first, compareWindows)
	if more {
		next = first[len(first)-1].place()
	}
	return first, next
}

// lastOnTop is a heap of windows with the last one, by door and source, on top.
type lastOnTop []WindowStatus

func (h lastOnTop) Len() int           { return len(h) }
func (h lastOnTop) Less(i, j int) bool { return compareWindows(h[i], h[j]) > 0 }
func (h lastOnTop) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lastOnTop) Push(x any)        { *h = append(*h, x.(WindowStatus)) }
func (h *lastOnTop) Pop() any          { panic("the heap only grows") }
