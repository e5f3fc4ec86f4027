package wall

import (
	"fmt"
	"sync"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/sessions"
)

// usageInterval is how often the size of conntrack's table is read.
const usageInterval = 5 * time.Second

// usage watches conntrack's table. The wall's rules make the kernel track all connections
// of the host. When the table is full, the kernel drops new connections, and knocks, too.
type usage struct {
	read  func() (known, room int, err error)
	trail *audit.Summer

	mu   sync.Mutex
	last reading
}

// reading is what was last read of conntrack's table.
type reading struct {
	known, room int  // connections; 0: unknown
	full        bool // an event said that it is nearly full
}

// watch records when conntrack's table becomes nearly full, and when it has room again.
// The second threshold is well below the first, so that events do not alternate.
func (u *usage) watch(now time.Time) {
	known, room, err := u.read()
	if err != nil {
		known, room = 0, 0 // the next time it is tried again
	}
	before := u.reading()
	next := reading{known, room, before.full}
	e := audit.Event{Time: now, Kind: audit.Overloaded}
	switch {
	case !before.full && sessions.NearlyFull(known, room):
		next.full = true
		e.Code, e.Reason = audit.CodeConntrackFull, fmt.Sprintf("conntrack's table is nearly full, %d of %d connections: when it is full, the kernel drops new connections of this host, and knocks. "+
			"Increase net.netfilter.nf_conntrack_max", known, room)
	case before.full && room > 0 && known < room/10*8:
		next.full = false
		e.Code, e.Reason = audit.CodeConntrackRoom, fmt.Sprintf("conntrack's table has room again, %d of %d connections", known, room)
	}
	u.mu.Lock()
	u.last = next
	u.mu.Unlock()
	if e.Code != "" {
		u.trail.Record(e)
	}
}

// reading returns what was last read.
func (u *usage) reading() reading {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last
}
