package nflog

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nfnetlink"
)

// How many messages the kernel is to put into a datagram. One at a time is what a
// knock wants that comes by itself: whoever waits for it shall not wait longer. But
// each costs as much to read as a whole batch, and where they come by the ten thousand
// a batch is full in no time. So it depends on how many come.
const (
	atOnce   = 1
	together = 64 // or as many as fit in a page, about 22

	paceInterval = 10 * time.Millisecond
	many         = 200 // in an interval, from which on they come together
	few          = 100 // up to which they come at once again
)

// pace is how fast messages come.
type pace struct {
	began    time.Time // of the interval
	messages int       // since
	batched  bool
}

// keepPace counts a message, and tells the kernel if it is to send them otherwise.
func (l *Log) keepPace(now time.Time) {
	p := &l.pace
	p.messages++
	took := now.Sub(p.began)
	if took < paceInterval {
		return
	}
	rate := float64(p.messages) / float64(took) * float64(paceInterval)
	p.began, p.messages = now, 0
	threshold := uint32(atOnce)
	switch {
	case !p.batched && rate > many:
		threshold = together
	case !p.batched || rate > few:
		return
	}
	p.batched = threshold == together
	// If that fails they come as before, which is only slower.
	_ = l.sender.Send(unix.NFNL_SUBSYS_ULOG, msgConfig, l.number,
		nfnetlink.AppendAttribute(make([]byte, 0, 8), attrConfigQThreshold, threshold))
}
