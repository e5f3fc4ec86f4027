package share

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/build"
	"github.com/knockwall/knockwall/internal/wall"
)

// traffic counts messages since this companion was started.
type traffic struct{ sent, received, lost uint64 }

// measured is what a companion measures of another member.
type measured struct {
	version   string // "": unknown
	lag       time.Duration
	ahead     time.Duration // its clock
	known     bool          // lag and ahead are
	ping      string        // that it has not answered; "": none
	pinged    time.Time
	ponged    time.Time // when its ping was last answered
	base      uint64    // the number of its last news when it was first heard
	seen      uint64    // its news since
	beaten    uint64    // the number in its last beat
	lost      uint64
	lostToNow uint64 // in earlier runs of it
}

const (
	// pingEvery is how often each member is measured in a small group, and pingInterval the
	// time between any two pings in a large one.
	pingEvery    = 2 * time.Second
	pingInterval = 50 * time.Millisecond
	// tellEvery is how often the daemon is told, which believes it for ten seconds.
	tellEvery = 2 * time.Second
	// maxLost is the greatest number of lost messages that is told of a member: what it says
	// of its own numbers may be a lie.
	maxLost = 1 << 40
)

// begin begins anew with a run of the member.
func (m *measured) begin(what string, number uint64) {
	*m = measured{pinged: m.pinged, ponged: m.ponged, lostToNow: m.lostToNow + m.lost, base: number, beaten: number}
	if what == "news" {
		m.base = max(1, number) - 1 // which is counted now
	}
}

// countLost returns how many messages are known to be lost that were not before. News and
// beats are read side by side, so that a beat may overtake the news before it, but not that
// before the last beat.
func (m *measured) countLost(number uint64) (more uint64) {
	if came := m.base + m.seen; m.beaten > came {
		if lost := min(m.beaten-came, maxLost); lost > m.lost {
			more, m.lost = lost-m.lost, lost
		}
	}
	m.beaten = max(m.beaten, number)
	return more
}

// measure measures how long messages of the other members take, one after the other.
func (c *Companion) measure(ctx context.Context) {
	for pause(ctx, pingInterval) {
		c.mu.Lock()
		now := time.Now()
		name, next := "", (*other)(nil)
		for n, o := range c.others {
			if next == nil || o.pinged.Before(next.pinged) {
				name, next = n, o
			}
		}
		if c.known && next != nil && now.Sub(next.pinged) >= pingEvery {
			if next.ping != "" { // it has not answered the last one
				next.known = false
			}
			next.ping, next.pinged = rand.Text(), now
			c.send("ping."+name, message{Ping: next.ping})
		}
		c.mu.Unlock()
	}
}

// pong answers a ping, with mu held.
func (c *Companion) pong(name string, o *other, ping string, now time.Time) {
	if now.Sub(o.ponged) < askInterval {
		return
	}
	o.ponged = now
	c.send("pong."+name, message{Ping: ping, Clock: now.UnixMilli(), Version: build.Version()})
}

// answeredPing takes the answer to a ping.
func (m *measured) answeredPing(answer *message, now time.Time) {
	if m.ping == "" || answer.Ping != m.ping {
		return
	}
	trip := now.Sub(m.pinged)
	m.ping, m.version, m.known, m.lag = "", answer.Version, true, trip/2
	m.ahead = time.UnixMilli(answer.Clock).Sub(m.pinged.Add(trip / 2).Round(0))
}

// tellSharing tells the daemon what is known of the group, for its status.
func (c *Companion) tellSharing(ctx context.Context) {
	for {
		_ = c.daemon.TellSharing(ctx, c.sharing(time.Now())) // without a daemon, follow says so
		if !pause(ctx, tellEvery) {
			return
		}
	}
}

func (c *Companion) sharing(now time.Time) wall.Companion {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := wall.Companion{Group: c.Share.Group, Name: c.Name, Version: build.Version(),
		Connected: c.conn != nil && c.conn.IsConnected(), Namesake: now.Sub(c.namesake) < silence, Count: len(c.others),
		Members: []wall.Member{}, Sent: c.traffic.sent, Received: c.traffic.received, Lost: c.traffic.lost}
	for name, o := range c.others {
		m := wall.Member{Name: name, Version: o.version, HeardSeconds: max(0, now.Sub(o.heard)).Seconds(), Lost: min(o.lostToNow+o.lost, maxLost)}
		if o.known {
			const most = 100 * 365 * 24 * time.Hour // it says what it likes
			lag, ahead := o.lag.Seconds(), min(max(o.ahead, -most), most).Seconds()
			m.LagSeconds, m.ClockAheadSeconds = &lag, &ahead
		}
		known.Members = append(known.Members, m)
	}
	slices.SortFunc(known.Members, func(a, b wall.Member) int { return cmp.Compare(a.Name, b.Name) })
	known.Members = known.Members[:min(len(known.Members), wall.MaxMembers)]
	return known
}
