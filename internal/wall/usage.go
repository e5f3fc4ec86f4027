package wall

import (
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/sessions"
)

// usageInterval is how often it is looked how full conntrack's table is.
const usageInterval = 5 * time.Second

// usage is how full conntrack's table was found. The wall's rules make the kernel follow all
// connections of the host, and drop what is new when there is no room, knocks too.
type usage struct {
	looked      time.Time
	known, room int  // connections
	full        bool // nearly, as was told
}

// watchUsage tells when conntrack's table is nearly full, and when it is no more, by a good
// deal, so that it is not told all the time.
func (w *Wall) watchUsage(now time.Time) (next time.Time, ok bool) {
	if w.edges.Usage == nil {
		return time.Time{}, false
	}
	w.mu.Lock()
	before := w.usage
	w.mu.Unlock()
	if next := before.looked.Add(usageInterval); next.After(now) {
		return next, true
	}
	known, room, err := w.edges.Usage()
	if err != nil {
		known, room = 0, 0 // unknown, and tried again
	}
	u := usage{looked: now, known: known, room: room, full: before.full}
	e := audit.Event{Time: now, Kind: audit.Overloaded}
	switch {
	case !before.full && sessions.NearlyFull(known, room):
		u.full = true
		e.Code, e.Reason = audit.CodeConntrackFull, fmt.Sprintf("conntrack's table is nearly full, %d of %d connections: when it is full, new connections of this host are dropped, and knocks; "+
			"net.netfilter.nf_conntrack_max makes room", known, room)
	case before.full && room > 0 && known < room/10*8:
		u.full = false
		e.Code, e.Reason = audit.CodeConntrackRoom, fmt.Sprintf("conntrack's table has room again, %d of %d connections", known, room)
	}
	w.mu.Lock()
	w.usage = u
	w.mu.Unlock()
	if e.Code != "" {
		w.trail.Record(e)
	}
	return now.Add(usageInterval), true
}
