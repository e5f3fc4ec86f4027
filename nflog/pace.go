package nflog

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nfnetlink"
)

// batch limits a datagram of the kernel: to so many messages and so many bytes. The
// kernel sends it earlier when the group's timeout is over.
type batch struct{ messages, bytes uint32 }

// A single knock should be delivered at once, because a client waits for it. But each
// datagram costs as much to read as a whole batch, and when knocks come by the ten
// thousand a batch fills in no time. So the batch depends on the rate.
var (
	atOnce   = batch{1, 4 << 10}
	together = batch{64, 16 << 10}
)

const (
	paceInterval = 10 * time.Millisecond
	many         = 200 // messages in an interval: above this they are batched
	few          = 100 // messages in an interval: up to this they are sent at once again
)

// pace measures how fast messages come.
type pace struct {
	began    time.Time // when the interval began
	messages int       // messages since then
	batched  bool
}

// keepPace makes the kernel send messages in batches, or one by one, when the rate has
// changed.
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
	// If sending fails the pace stays as it was, which is only slower.
	_ = l.sender.Send(unix.NFNL_SUBSYS_ULOG, msgConfig, l.number, config)
}
