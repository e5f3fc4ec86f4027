package wall

import (
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/sessions"
)

// usageInterval is how often the size of conntrack's table is read.
const usageInterval = 5 * time.Second

// usage is the last reading of conntrack's table. The wall's rules make the kernel track
// all connections of the host. When the table is full, the kernel drops new connections,
// and knocks, too.
type usage struct {
	looked      time.Time
	known, room int  // connections
	full        bool // an event said that it is nearly full
}

// watchUsage records when conntrack's table becomes nearly full, and when it has room
// again. The second threshold is well below the first, so that events do not alternate.
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
		known, room = 0, 0 // unknown; the next round tries again
	}
	u := usage{looked: now, known: known, room: room, full: before.full}
	e := audit.Event{Time: now, Kind: audit.Overloaded}
	switch {
	case !before.full && sessions.NearlyFull(known, room):
		u.full = true
		e.Code, e.Reason = audit.CodeConntrackFull, fmt.Sprintf("conntrack's table is nearly full, %d of %d connections: when it is full, the kernel drops new connections of this host, and knocks. "+
			"Increase net.netfilter.nf_conntrack_max", known, room)
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
