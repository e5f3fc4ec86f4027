// Package nfqueue receives the first packets of new connections from an NFQUEUE of the
// kernel, and gives the verdicts on them. The messages are those of the kernel header
// linux/netfilter/nfnetlink_queue.h.
//
// A packet waits in the kernel under an id until its verdict comes. There are three
// verdicts: accept the packet, send it through the rules again, or send it through the
// rules again with a mark that says it is refused. So the kernel's rules alone turn
// packets away.
package nfqueue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nfnetlink"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
)

// socketBuffer is the size in bytes of the socket's receive buffer in the kernel. It
// holds about 10,000 packets.
const socketBuffer = 4 << 20

// Packet has the header fields of a packet. Progress is the state of a [Queue] at one
// moment. They are types of this module's internal packages, by names that other modules
// can use.
type (
	Packet   = packet.Packet
	Progress = progress.Progress
)

// Handler judges packets. Its methods are called one at a time for each queue.
type Handler interface {
	// Queued is called for each packet that waits for a verdict. The ids of a queue grow
	// in the order in which the kernel queued the packets.
	Queued(id uint32, p Packet)
	// Unreadable is called for a packet whose headers cannot be parsed. It waits for a
	// verdict, too.
	Unreadable(id uint32)
	// Failed is called once, when the queue can no longer be read.
	Failed(err error)
}

// Config says which queue to bind, and how it behaves.
type Config struct {
	Number uint16 // from 0 to 65535
	// Length is how many packets may wait. Packets beyond that are dropped, or accepted
	// if the queue fails open.
	Length uint32
	// FailOpen accepts packets that come when the queue is full.
	FailOpen bool
	// RefusedMark is the packet mark (skb->mark) that refused packets get. It is not 0,
	// which would leave the mark as it was.
	RefusedMark uint32
}

// Queue is an NFQUEUE that is bound to this process. Verdicts may be given from any
// goroutine.
type Queue struct {
	queue   *nfqueue.Nfqueue
	config  Config
	cancel  context.CancelFunc
	reader  *nfnetlink.Reader
	sender  *nfnetlink.Sender
	handler Handler
}

// Listen binds a queue and passes its packets to h. It needs CAP_NET_ADMIN in the network
// namespace; without it, or if another socket has bound the queue, the kernel answers
// EPERM. Call Listen before a rule names the queue: packets that arrive while it is being
// bound would be taken for the kernel's answers.
func Listen(c Config, h Handler) (*Queue, error) {
	flags := uint32(nfqueue.NfQaCfgFlagGSO) // only headers are read, so segments need not be split
	if c.FailOpen {
		flags |= nfqueue.NfQaCfgFlagFailOpen
	}
	conn, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:      c.Number,
		MaxPacketLen: packet.SnapLen,
		MaxQueueLen:  c.Length,
		Copymode:     nfqueue.NfQnlCopyPacket,
		Flags:        flags,
	})
	if err != nil {
		return nil, fmt.Errorf("opening queue %d: %w", c.Number, err)
	}
	q := &Queue{queue: conn, config: c, handler: h}
	if err := q.listen(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("binding queue %d: %w", c.Number, err)
	}
	return q, nil
}

func (q *Queue) listen() (err error) {
	// Beyond rmem_max this takes CAP_NET_ADMIN in the initial user namespace. A smaller
	// buffer is enough.
	_ = q.queue.Con.SetReadBuffer(socketBuffer)
	if q.sender, err = nfnetlink.NewSender(q.queue.Con); err != nil {
		return err
	}
	q.reader, q.cancel, err = nfnetlink.Take(q.queue.Con, reading{q}, func(ctx context.Context, cannotRead func(error) int) error {
		return q.queue.RegisterWithErrorFunc(ctx, func(nfqueue.Attribute) int { return 0 }, cannotRead)
	})
	return err
}

// InUse reports whether another socket has bound a queue. It changes nothing. It needs
// CAP_NET_ADMIN in the network namespace: without it nobody can know, and the error is
// EPERM.
func InUse(number uint16) (bool, error) {
	used, err := nfnetlink.InUse(unix.NFNL_SUBSYS_QUEUE, msgConfig, number)
	if err != nil {
		return false, fmt.Errorf("asking whether queue %d is in use: %w", number, err)
	}
	return used, nil
}

// ReadNow passes the packets that wait to the handler, without waiting until the goroutine that
// reads them gets a CPU. The handler must not call it.
func (q *Queue) ReadNow() { q.reader.ReadNow() }

// Close unbinds the queue. Packets that still wait in it are dropped.
func (q *Queue) Close() error {
	q.cancel()
	return q.queue.Close()
}

// Accept lets a packet pass (NF_ACCEPT). As of all verdicts, the error says that the
// request could not be sent. A verdict on a packet that no longer waits does nothing.
func (q *Queue) Accept(id uint32) error {
	return q.verdict(msgVerdict, id, nfqueue.NfAccept, 0)
}

// Repeat sends a packet through the rules again (NF_REPEAT).
func (q *Queue) Repeat(id uint32) error {
	return q.verdict(msgVerdict, id, nfqueue.NfRepeat, 0)
}

// Refuse sends a packet through the rules again with the mark [Config].RefusedMark.
func (q *Queue) Refuse(id uint32) error {
	return q.verdict(msgVerdict, id, nfqueue.NfRepeat, q.config.RefusedMark)
}

// RepeatUpTo sends all waiting packets whose id is not after id through the rules again.
func (q *Queue) RepeatUpTo(id uint32) error {
	return q.verdict(msgVerdictBatch, id, nfqueue.NfRepeat, 0)
}

// RefuseUpTo refuses all waiting packets whose id is not after id.
func (q *Queue) RefuseUpTo(id uint32) error {
	return q.verdict(msgVerdictBatch, id, nfqueue.NfRepeat, q.config.RefusedMark)
}

// From enum nfqnl_msg_types and enum nfqnl_attr_type in
// linux/netfilter/nfnetlink_queue.h.
const (
	msgVerdict        = 1
	msgConfig         = 2
	msgVerdictBatch   = 3
	attrPacketHeader  = 1
	attrVerdictHeader = 2
	attrMark          = 3
	attrInterface     = 5
	attrPayload       = 10
)

func (q *Queue) verdict(kind uint8, id uint32, verdict uint32, mark uint32) error {
	attributes := nfnetlink.AppendAttribute(make([]byte, 0, 20), attrVerdictHeader, verdict, id)
	if mark != 0 {
		attributes = nfnetlink.AppendAttribute(attributes, attrMark, mark)
	}
	if err := q.sender.Send(unix.NFNL_SUBSYS_QUEUE, kind, q.config.Number, attributes); err != nil {
		return fmt.Errorf("giving a verdict to queue %d: %w", q.config.Number, err)
	}
	return nil
}

// Stats are the kernel's figures about a queue.
type Stats struct {
	Waiting int    // packets without a verdict, including those not yet read
	Lost    uint64 // packets dropped since it was bound, because it was full or the daemon read too slowly
}

// Stats reads the queue's line of /proc/net/netfilter/nfnetlink_queue, in the network
// namespace of the process. The columns are those that seq_show of the kernel's
// net/netfilter/nfnetlink_queue.c writes. It fails if the file cannot be read, or if the
// queue is not in it.
func (q *Queue) Stats() (Stats, error) {
	b, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return Stats{}, fmt.Errorf("reading the kernel's account of its queues: %w", err)
	}
	return statsOf(string(b), q.config.Number)
}

func statsOf(table string, queue uint16) (Stats, error) {
	for line := range strings.Lines(table) {
		var number, port, waiting, mode, length, full, unread uint64
		n, _ := fmt.Sscan(line, &number, &port, &waiting, &mode, &length, &full, &unread)
		if n == 7 && number == uint64(queue) {
			return Stats{Waiting: int(waiting), Lost: full + unread}, nil
		}
	}
	return Stats{}, fmt.Errorf("the kernel's account of its queues has no queue %d", queue)
}

// Progress returns how many messages were handled so far, and whether the socket is idle.
// By two of these a caller can tell a queue that hangs.
func (q *Queue) Progress() Progress { return q.reader.Progress() }

// reading passes what is read to the Queue. It keeps these methods out of the Queue's
// API.
type reading struct{ *Queue }

func (q reading) Message(attributes []byte, _ bool) {
	var header, payload []byte
	var by uint32
	for a, rest, ok := nfnetlink.NextAttribute(attributes); ok; a, rest, ok = nfnetlink.NextAttribute(rest) {
		switch a.Kind {
		case attrPacketHeader:
			header = a.Value
		case attrPayload:
			payload = a.Value
		case attrInterface:
			if len(a.Value) == 4 {
				by = binary.BigEndian.Uint32(a.Value)
			}
		}
	}
	if len(header) < 4 {
		return // the message does not say which packet it is about
	}
	id := binary.BigEndian.Uint32(header)
	if p, ok := packet.Parse(payload); ok {
		p.CameBy(by)
		q.handler.Queued(id, p)
	} else {
		q.handler.Unreadable(id)
	}
}

// ReadError decides whether reading goes on after an error. The kernel's answer to a
// verdict that came too late (ENOENT) arrives here, too, and is ignored.
func (q reading) ReadError(err error) (goOn bool) {
	switch {
	case errors.Is(err, unix.ENOBUFS): // [Queue.Stats] says how many were lost
		return true
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR):
		return true
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed), errors.Is(err, syscall.EBADF):
		return false
	}
	q.handler.Failed(fmt.Errorf("reading queue %d: %w", q.config.Number, err))
	return false
}
