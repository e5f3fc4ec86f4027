// Package nflog receives the knocks: packets that nftables rules log to an NFLOG group,
// each with the log prefix of its rule. The messages are those of the kernel header
// linux/netfilter/nfnetlink_log.h.
//
// A logged packet goes on through the kernel without waiting for the daemon. So a knock
// port answers like any other port.
//
// One socket receives all knocks of all doors, in the order in which the kernel logged
// them. None is filtered out, not even in a flood, because nobody can tell an honest
// client's knock from the others before. So the cost of one message matters. A single
// knock is delivered at once. When tens of thousands come in a second, the kernel sends
// them in batches of up to 16 KiB, and one costs the daemon about a microsecond of CPU,
// from the socket to the step of an attempt.
//
// The alternative was rejected: the kernel could remember first knocks in a set and log
// only the knocks after them, so that each logged knock proves a first knock of the same
// source. The set costs the kernel a microsecond for each packet, too, and about 100
// bytes for each source. An attacker can fill it at will. It helps only against floods of
// first knocks. And package sequence already remembers the attempts that it evicts, which
// the set would prove.
//
// One CPU reads about 500,000 knocks a second. Beyond that some are lost, an honest
// client's perhaps among them, and that client has to knock again.
package nflog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/florianl/go-nflog/v2"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nfnetlink"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
)

// socketBuffer is the size in bytes of the socket's receive buffer in the kernel. It
// holds 4,000 to 10,000 knocks one by one, or 50,000 in batches.
const socketBuffer = 4 << 20

// Packet has the header fields of a packet. Progress is the state of a [Log] at one
// moment. They are types of this module's internal packages, by names that other modules
// can use.
type (
	Packet   = packet.Packet
	Progress = progress.Progress
)

// Handler receives what the kernel has logged. Its methods are called from one goroutine.
type Handler interface {
	// Logged is called for each packet, with the log prefix of its rule. If the packet is
	// a whole UDP datagram, data is its payload, otherwise nil. Logged must not keep
	// prefix or data. Packets that are neither TCP nor UDP, and later fragments, are left
	// out.
	Logged(prefix []byte, p Packet, data []byte)
	// Lost is called when n logged packets did not arrive, as far as the kernel's
	// sequence numbers tell (NFULA_SEQ), or when the socket's buffer has overflowed
	// (ENOBUFS).
	Lost(n uint32)
	// Failed is called once, when the group can no longer be read. Nothing is logged to
	// the Handler after that.
	Failed(err error)
}

// Log is an NFLOG group that is bound to this process.
type Log struct {
	group  *nflog.Nflog
	number uint16
	cancel context.CancelFunc
	reader *nfnetlink.Reader
	sender *nfnetlink.Sender
	pace   pace

	handler Handler
	busy    sync.Mutex // held while the handler runs
	closed  bool
	next    uint32 // the kernel's sequence number of the next packet, from 0 on
	told    uint32 // losses that were reported before the sequence numbers showed how many
}

// Listen binds a group, from 0 to 65535, and passes what is logged to it to h. It needs
// CAP_NET_ADMIN in the network namespace; without it, or if another socket has bound the
// group, the kernel answers EPERM. Call Listen before a rule names the group: messages
// that arrive while it is being bound would be taken for the kernel's answers.
func Listen(group uint16, h Handler) (*Log, error) {
	conn, err := nflog.Open(&nflog.Config{
		Group:    group,
		Copymode: nflog.CopyPacket,
		Bufsize:  packet.MaxSnapLen, // a rule may ask for less
		Flags:    nflog.FlagSeq,
		QThresh:  atOnce.messages,
		Timeout:  1, // in units of 10 ms
	})
	if err != nil {
		return nil, fmt.Errorf("opening NFLOG group %d: %w", group, err)
	}
	l := &Log{group: conn, number: group, handler: h}
	if err := l.listen(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("binding NFLOG group %d: %w", group, err)
	}
	return l, nil
}

func (l *Log) listen() (err error) {
	// Beyond rmem_max this takes CAP_NET_ADMIN in the initial user namespace. A smaller
	// buffer is enough.
	_ = l.group.Con.SetReadBuffer(socketBuffer)
	if l.sender, err = nfnetlink.NewSender(l.group.Con); err != nil {
		return err
	}
	l.reader, l.cancel, err = nfnetlink.Take(l.group.Con, reading{l}, func(ctx context.Context, cannotRead func(error) int) error {
		return l.group.RegisterWithErrorFunc(ctx, func(nflog.Attribute) int { return 0 }, cannotRead)
	})
	return err
}

// InUse reports whether another socket has bound a group. It changes nothing. It needs
// CAP_NET_ADMIN in the network namespace: without it nobody can know, and the error is
// EPERM.
func InUse(group uint16) (bool, error) {
	used, err := nfnetlink.InUse(unix.NFNL_SUBSYS_ULOG, msgConfig, group)
	if err != nil {
		return false, fmt.Errorf("asking whether NFLOG group %d is in use: %w", group, err)
	}
	return used, nil
}

// From enum nfulnl_msg_types, nfulnl_attr_type and nfulnl_attr_config in
// linux/netfilter/nfnetlink_log.h.
const (
	msgConfig            = 1
	attrInterface        = 4
	attrPayload          = 9
	attrPrefix           = 10
	attrSequence         = 12
	attrConfigBufferSize = 3
	attrConfigQThreshold = 5
)

// Close unbinds the group. It waits for a handler that is running: do not call it from
// one. Once it returns, no method of the [Handler] is called any more.
func (l *Log) Close() error {
	l.cancel()
	err := l.group.Close()
	l.busy.Lock()
	defer l.busy.Unlock()
	l.closed = true
	return err
}

// Drained reports whether everything that was logged so far has been read from the
// socket. The handler may still be handling the last message. In a flood the kernel may
// still hold some messages, for 10 ms at most.
func (l *Log) Drained() bool { return l.reader.Drained() }

// Progress returns how many messages were handled so far, and whether the socket is idle.
// By two of these a caller can tell a log that hangs.
func (l *Log) Progress() Progress { return l.reader.Progress() }

// reading passes what is read to the Log. It keeps these methods out of the Log's API.
type reading struct{ *Log }

func (l reading) Message(attributes []byte, last bool) {
	l.busy.Lock()
	defer l.busy.Unlock()
	if l.closed {
		return
	}
	var prefix, payload []byte
	var by uint32
	for a, rest, ok := nfnetlink.NextAttribute(attributes); ok; a, rest, ok = nfnetlink.NextAttribute(rest) {
		switch {
		case a.Kind == attrPrefix:
			prefix = bytes.TrimRight(a.Value, "\x00")
		case a.Kind == attrPayload:
			payload = a.Value
		case a.Kind == attrInterface && len(a.Value) == 4:
			by = binary.BigEndian.Uint32(a.Value)
		case a.Kind == attrSequence && len(a.Value) == 4:
			l.numbered(binary.BigEndian.Uint32(a.Value))
		}
	}
	if l.pace.messages++; last {
		l.keepPace(time.Now())
	}
	if p, data, ok := packet.ParseDatagram(payload); ok {
		p.CameBy(by)
		l.handler.Logged(prefix, p, data)
	}
}

// numbered records the kernel's sequence number of a packet. The gap to the number before
// is how many were lost.
func (l reading) numbered(n uint32) {
	lost := n - l.next
	if lost > l.told {
		l.handler.Lost(lost - l.told)
	}
	l.told -= min(lost, l.told)
	l.next = n + 1
}

// ReadError decides whether reading goes on after an error. It does not after a deadline,
// which is how reading is ended, nor on a closed socket. When the socket's buffer
// overflows, at least one packet is lost. The gap in the sequence numbers shows how many
// when the next packet comes.
func (l reading) ReadError(err error) (goOn bool) {
	var answer *nfnetlink.AnswerError
	switch {
	case errors.As(err, &answer): // the answer to a request of keepPace: the pace stays as it was
		return true
	case errors.Is(err, unix.ENOBUFS):
		l.busy.Lock()
		defer l.busy.Unlock()
		if !l.closed {
			l.handler.Lost(1)
			l.told++
		}
		return true
	case errors.Is(err, unix.EINTR):
		return true
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed), errors.Is(err, syscall.EBADF):
		return false
	}
	l.busy.Lock()
	defer l.busy.Unlock()
	if !l.closed {
		l.handler.Failed(fmt.Errorf("reading the NFLOG group: %w", err))
	}
	return false
}
