// Package nflog hears the knocks: packets that nftables rules log to an NFLOG
// group arrive here, each with the prefix that its rule gave it.
//
// Hearing them is all it does. A logged packet goes its way through the kernel
// without waiting for anybody, so that a knock port answers as any other.
package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/pulse"
)

// socketBuffer is how many bytes of messages the kernel keeps for the daemon
// when it is busy: about 4,000 knocks.
const socketBuffer = 4 << 20

// Handler takes what the kernel has logged. It is called from one goroutine.
type Handler interface {
	// Logged is called for each packet, with the prefix of the rule that logged it, and
	// what it carries if that is a whole datagram of UDP. Data is not to be kept.
	Logged(prefix string, p packet.Packet, data []byte)
	// Lost is called when packets were logged that never arrived: how many, as far
	// as the kernel's numbering of them tells.
	Lost(n uint32)
	// Failed is called once, when the group can no longer be read.
	Failed(err error)
}

// Log is an NFLOG group that is being listened to.
type Log struct {
	group    *nflog.Nflog
	cancel   context.CancelFunc
	messages pulse.Counter

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
		// Each message at once: a knock that waits for others comes too late.
		QThresh: 1,
		Timeout: 1, // in 10 ms
	})
	if err != nil {
		return nil, fmt.Errorf("opening NFLOG group %d: %w", group, err)
	}
	// Beyond rmem_max this takes CAP_NET_ADMIN of the initial user namespace; what
	// can be had is enough.
	_ = conn.Con.SetReadBuffer(socketBuffer)
	ctx, cancel := context.WithCancel(context.Background())
	l := &Log{group: conn, cancel: cancel, handler: h}
	if err := conn.RegisterWithErrorFunc(ctx, l.logged, l.readError); err != nil {
		cancel()
		conn.Close()
		return nil, fmt.Errorf("binding NFLOG group %d: %w", group, err)
	}
	return l, nil
}

// InUse reports whether somebody else listens to a group. It changes nothing:
// it asks for a change of nothing in a group, which the kernel refuses with
// EPERM where the group is another socket's, and with ENODEV where there is none.
func InUse(group uint16) (bool, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, fmt.Errorf("asking for NFLOG group %d: %w", group, err)
	}
	defer conn.Close()
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | msgConfig),
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group),
	})
	switch {
	case errors.Is(err, unix.EPERM):
		return true, nil
	case errors.Is(err, unix.ENODEV):
		return false, nil
	}
	return false, fmt.Errorf("asking for NFLOG group %d: %w", group, err)
}

// msgConfig is NFULNL_MSG_CONFIG of linux/netfilter/nfnetlink_log.h.
const msgConfig = 1

// Close unbinds the group. The handler is not called any more once it returns.
func (l *Log) Close() error {
	l.cancel()
	err := l.group.Close()
	l.busy.Lock()
	defer l.busy.Unlock()
	l.closed = true
	return err
}

// Drained reports whether everything that was logged so far has been taken off
// the socket. The last message may still be on its way to the handler.
func (l *Log) Drained() bool {
	return pulse.Drained(l.group.Con)
}

// Pulse tells whether what is logged is being handled.
func (l *Log) Pulse() pulse.Pulse { return l.messages.Of(l.group.Con) }

func (l *Log) logged(a nflog.Attribute) int {
	l.messages.Begin()
	defer l.messages.Done()
	l.busy.Lock()
	defer l.busy.Unlock()
	if l.closed {
		return 1
	}
	if a.Seq != nil {
		lost := *a.Seq - l.next
		if lost > l.told {
			l.handler.Lost(lost - l.told)
		}
		l.told -= min(lost, l.told)
		l.next = *a.Seq + 1
	}
	if a.Prefix == nil || a.Payload == nil {
		return 0
	}
	if p, data, ok := packet.ParseDatagram(*a.Payload); ok {
		l.handler.Logged(*a.Prefix, p, data)
	}
	return 0
}

// readError decides whether reading goes on after an error: after a deadline,
// which is how reading is ended, and on a closed socket it does not. When the
// socket's buffer overflows, it is known at once that something was lost, and how
// much from the gap in the numbers, when the next packet comes.
func (l *Log) readError(err error) int {
	if errors.Is(err, unix.ENOBUFS) {
		l.busy.Lock()
		defer l.busy.Unlock()
		if !l.closed {
			l.handler.Lost(1)
			l.told++
		}
		return 0
	}
	if errors.Is(err, unix.EINTR) {
		return 0
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EBADF) {
		return 1
	}
	l.handler.Failed(fmt.Errorf("reading the NFLOG group: %w", err))
	return 1
}
