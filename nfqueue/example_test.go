package nfqueue_test

import (
	"log"
	"net/netip"
	"time"

	"github.com/knockwall/knockwall/nfqueue"
)

// judge accepts packets of one network, and refuses the others.
type judge struct {
	queue   *nfqueue.Queue
	ready   chan struct{} // closed once queue is set
	allowed netip.Prefix
}

func (j *judge) Queued(id uint32, p nfqueue.Packet) {
	<-j.ready
	verdict := j.queue.Refuse
	if j.allowed.Contains(p.Source) {
		verdict = j.queue.Accept
	}
	if err := verdict(id); err != nil {
		log.Print(err)
	}
}

func (j *judge) Unreadable(id uint32) {
	<-j.ready
	if err := j.queue.Refuse(id); err != nil {
		log.Print(err)
	}
}

func (j *judge) Failed(err error) { log.Print(err) }

// Judge the packets that a rule such as "tcp dport 22 meta mark != 0x1 queue to 7101"
// queues. A rule before it has to reject the packets with the mark. Add the rules after
// Listen has returned. Listen needs CAP_NET_ADMIN.
func ExampleListen() {
	j := &judge{ready: make(chan struct{}), allowed: netip.MustParsePrefix("192.0.2.0/24")}
	q, err := nfqueue.Listen(nfqueue.Config{Number: 7101, Length: 1024, RefusedMark: 1}, j)
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	j.queue = q
	close(j.ready)
	time.Sleep(time.Minute)
}
