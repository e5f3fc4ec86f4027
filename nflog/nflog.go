// Package nflog hears the knocks: packets that nftables rules log to an NFLOG
// group arrive here, each with the prefix that its rule gave it.
//
// Hearing them is all it does. A logged packet goes its way through the kernel
// without waiting for anybody, so that a knock port answers as any other.
//
// All knocks of all doors are heard through one socket, in the order in which the
// kernel has logged them, and every one: in a flood, too, as nobody can tell an honest
// client's from the others before. So what counts is what hearing one costs. Alone it
// is handed on at once; when they come by the ten thousand a second the kernel hands
// on a page full of them, and one costs the daemon about a microsecond of CPU, from the
// socket to the attempt that it is a step of.
//
// The other way would be to let the kernel remember first knocks in a set, and to hear
// all but these: what it then logs is proof of a first knock by the same source. It
// was weighed and left. The set costs the kernel a microsecond for each packet, too,
// and some 100 bytes for each source; it is full when whoever floods wants it to be; it
// helps against floods of first knocks alone; and the attempts that would be proved by
// it are safe here, as package sequence remembers those that have to give way.
//
// What it cannot withstand is more knocks than one CPU can read, some 500,000 a second:
// then part of them is lost, an honest client's among them, and it has to knock again.
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

// socketBuffer is how many bytes of messages the kernel keeps for the daemon
// when it is busy: some 4,000 to 10,000 knocks one by one, 50,000 in batches.
const socketBuffer = 4 << 20

// Handler takes what the kernel has logged. It is called from one goroutine.
type Handler interface {
	// Logged is called for each packet, with the prefix of the rule that logged it, and
	// what it carries if that is a whole datagram of UDP. Neither is to be kept.
	Logged(prefix []byte, p packet.Packet, data []byte)
	// Lost is called when packets were logged that never arrived: how many, as far
	// as the kernel's numbering of them tells.
	Lost(n uint32)
	// Failed is called once, when the group can no longer be read.
	Failed(err error)
}

// Log is an NFLOG group that is being listened to.
type Log struct {
	group  *nflog.Nflog
	number uint16
	cancel context.CancelFunc
	reader *nfnetlink.Reader
	sender *nfnetlink.Sender
	pace   pace

	handler Handler
	busy    sync.Mutex // while the handler is
	closed  bool
	next    uint32 // the kernel's number for the packet that is due, from 0 on
	told    uint32 // losses that were told of before the numbers showed how many
}

// Listen binds a group and hands what is logged to it to h. No rule may name the
// group yet: messages that arrive while it is being bound would be taken for the
// kernel's answers.
func Listen(group uint16, h Handler) (*Log, error) {
	conn, err := nflog.Open(&nflog.Config{
		Group:    group,
		Copymode: nflog.CopyPacket,
		Bufsize:  packet.MaxSnapLen, // of which a rule may ask for less
		Flags:    nflog.FlagSeq,
		QThresh:  atOnce.messages,
		Timeout:  1, // in 10 ms
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
	// Beyond rmem_max this takes CAP_NET_ADMIN of the initial user namespace; what
	// can be had is enough.
	_ = l.group.Con.SetReadBuffer(socketBuffer)
	if l.sender, err = nfnetlink.NewSender(l.group.Con); err != nil {
		return err
	}
	l.reader, l.cancel, err = nfnetlink.Take(l.group.Con, reading{l}, func(ctx context.Context, cannotRead func(error) int) error {
		return l.group.RegisterWithErrorFunc(ctx, func(nflog.Attribute) int { return 0 }, cannotRead)
	})
	return err
}

// InUse reports whether somebody else listens to a group.
func InUse(group uint16) (bool, error) {
	used, err := nfnetlink.InUse(unix.NFNL_SUBSYS_ULOG, msgConfig, group)
	if err != nil {
		return false, fmt.Errorf("asking for NFLOG group %d: %w", group, err)
	}
	return used, nil
}

// Of enum nfulnl_msg_types, nfulnl_attr_type and nfulnl_attr_config in
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

// Close unbinds the group. The handler is not called any more once it returns.
func (l *Log) Close() error {
	l.cancel()
	err := l.group.Close()
	l.busy.Lock()
	defer l.busy.Unlock()
	l.closed = true
	return err
}

// Drained reports whether everything that was logged so far has been taken off the
// socket. The last message may still be on its way to the handler, and in a flood
// some in the kernel, for 10 ms at most.
func (l *Log) Drained() bool { return l.reader.Drained() }

// Progress tells whether what is logged is being handled.
func (l *Log) Progress() progress.Progress { return l.reader.Progress() }

// reading hands what is read to the Log, whose users have no business with that.
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

// numbered takes the kernel's number of a packet, from which it follows how many were
// lost before it.
func (l reading) numbered(n uint32) {
	lost := n - l.next
	if lost > l.told {
		l.handler.Lost(lost - l.told)
	}
	l.told -= min(lost, l.told)
	l.next = n + 1
}

// ReadError decides whether reading goes on after an error: after a deadline,
// which is how reading is ended, and on a closed socket it does not. When the
// socket's buffer overflows, it is known at once that something was lost, and how
// much from the gap in the numbers, when the next packet comes.
func (l reading) ReadError(err error) (goOn bool) {
	var answer *nfnetlink.AnswerError
	switch {
	case errors.As(err, &answer): // to what pace has asked for: then they come as before
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
	l.handler.Failed(fmt.Errorf("reading the NFLOG group: %w", err))
	return false
}
