package nflog

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nfnetlink"
)

// batch is how many messages the kernel puts into a datagram, and how many bytes, if
// it does not wait for longer than the group's timeout.
type batch struct{ messages, bytes uint32 }

// One at a time is what a knock wants that comes by itself: whoever waits for it shall
// not wait longer. But each costs as much to read as a whole batch, and where they come
// by the ten thousand a batch is full in no time. So it depends on how many come.
var (
	atOnce   = batch{1, 4 << 10}
	together = batch{64, 16 << 10}
)

const (
	paceInterval = 10 * time.Millisecond
	many         = 200 // messages in an interval, from which on they come together
	few          = 100 // up to which they come at once again
)

// pace is how fast messages come.
type pace struct {
	began    time.Time // of the interval
	messages int       // since
	batched  bool
}

// keepPace tells the kernel if it is to send messages otherwise.
func (l *Log) keepPace(now time.Time) {
	p := &l.pace
	took := now.Sub(p.began)
	if took < paceInterval {
		return
	}
	rate := float64(p.messages) * float64(paceInterval) / float64(took)
	p.began, p.messages = now, 0
	next := atOnce
	switch {
	case !p.batched && rate > many:
		next = together
	case !p.batched || rate > few:
		return
	}
	p.batched = next == together
	config := nfnetlink.AppendAttribute(make([]byte, 0, 16), attrConfigBufferSize, next.bytes)
	config = nfnetlink.AppendAttribute(config, attrConfigQThreshold, next.messages)
	// If that cannot be done they come as before, which is only slower.
	_ = l.sender.Send(unix.NFNL_SUBSYS_ULOG, msgConfig, l.number, config)
}
