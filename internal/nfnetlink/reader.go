package nfnetlink

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/progress"
)

// maxDatagram is the longest datagram that the kernel sends: NFULNL_NLBUFSIZ_MAX of
// net/netfilter/nfnetlink_log.c.
const maxDatagram = 128 << 10

// Handler receives what is read. Its methods are called one at a time: from the goroutine that
// reads, and from callers of [Reader.ReadNow].
type Handler interface {
	// Message receives the attributes of a message, and whether it is the last one of its
	// datagram. It must not keep the attributes.
	Message(attributes []byte, last bool)
	// ReadError receives an error of the socket, or an error that the kernel answers
	// with. It reports whether reading goes on.
	ReadError(err error) bool
}

// AnswerError is the kernel's refusal of a request.
type AnswerError struct{ Errno syscall.Errno }

func (e *AnswerError) Error() string { return "the kernel answers: " + e.Errno.Error() }
func (e *AnswerError) Unwrap() error { return e.Errno }

// Take sets up a socket that a library has opened, and then reads it in the library's
// place. It calls register, the library's own function for that, with the function that
// the library shall call when it cannot read. The returned CancelFunc ends the reading.
// It is not nil.
func Take(conn *netlink.Conn, h Handler, register func(context.Context, func(error) int) error) (*Reader, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(context.Background())
	r, err := newReader(conn, h)
	if err == nil {
		err = register(ctx, r.instead(ctx))
	}
	if err == nil {
		err = r.takeOver()
	}
	if err != nil {
		cancel()
	}
	return r, cancel, err
}

// Reader reads a socket in place of the library that opened it.
type Reader struct {
	conn     *netlink.Conn
	raw      syscall.RawConn
	handler  Handler
	messages progress.Counter
	more     atomic.Bool // messages are left of the datagram that is being handled

	mu       sync.Mutex // held while a datagram is read and handled
	datagram []byte
	ended    bool // nothing is read any more
}

// newReader returns a Reader of a socket. It reads once it has taken over.
func newReader(conn *netlink.Conn, h Handler) (*Reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Reader{conn: conn, raw: raw, handler: h, datagram: make([]byte, maxDatagram)}, nil
}

// instead returns the function that go-nflog and go-nfqueue call when they cannot read.
// Called when they begin to, it reads in their place until ctx ends or the handler ends
// the reading. The libraries set up the socket and close it.
func (r *Reader) instead(ctx context.Context) func(error) int {
	return func(error) int {
		// The library sets a deadline in the past only after ctx has ended.
		if err := r.conn.SetReadDeadline(time.Time{}); err == nil {
			r.run(ctx)
		}
		return 1
	}
}

// takeOver interrupts the library, which has begun to read. Nothing may have been sent to
// the socket before.
func (r *Reader) takeOver() error {
	return r.conn.SetReadDeadline(time.Unix(1, 0))
}

func (r *Reader) run(ctx context.Context) {
	// Made once, because a closure for each call would be allocated.
	read := func(fd uintptr) bool { return r.readOne(ctx, fd) }
	for ctx.Err() == nil {
		err := r.raw.Read(read) // waits for a datagram
		switch {
		case err == nil && r.hasEnded(), err != nil && ctx.Err() != nil: // or the socket is closed
			return
		case err != nil && !r.handler.ReadError(err):
			return
		}
	}
}

// readOne reads a datagram and handles it. It reports false if there is none. After the end it
// reads nothing, and reports true: nobody need wait for a datagram.
func (r *Reader) readOne(ctx context.Context, fd uintptr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return true
	}
	r.messages.Begin()
	n, err := unix.Read(int(fd), r.datagram)
	switch {
	case err == unix.EAGAIN:
		r.messages.Cancel()
		return false
	case err == nil:
		r.ended = !r.handle(r.datagram[:n])
	default:
		r.ended = ctx.Err() != nil || !r.handler.ReadError(os.NewSyscallError("read", err))
	}
	r.messages.Done()
	return true
}

func (r *Reader) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// readAtOnce is how many datagrams [Reader.ReadNow] reads at most.
const readAtOnce = 64

// ReadNow handles the messages that have come, without waiting until the goroutine that reads
// gets a CPU. It must not be called by the handler.
func (r *Reader) ReadNow() {
	_ = r.raw.Control(func(fd uintptr) {
		for range readAtOnce {
			if r.hasEnded() || !r.readOne(context.Background(), fd) {
				return
			}
		}
	})
}

// handle passes on the messages of a datagram.
func (r *Reader) handle(datagram []byte) (goOn bool) {
	defer r.more.Store(false) // whatever the last message was
	for m, rest, ok := NextMessage(datagram); ok; m, rest, ok = NextMessage(rest) {
		switch m.Kind {
		case unix.NLMSG_NOOP, unix.NLMSG_DONE:
		case unix.NLMSG_ERROR:
			if err := m.Refusal(); err != nil && !r.handler.ReadError(err) {
				return false
			}
		default:
			if len(m.body) >= familyLength {
				last := len(rest) <= headerLength+familyLength // the rest is at most an NLMSG_DONE
				r.more.Store(!last)
				r.handler.Message(m.Attributes(), last)
			}
		}
	}
	return true
}

// Drained reports whether every message that came so far has been read from the socket.
// If a handler calls it for a message, true means that the message is the last one.
func (r *Reader) Drained() bool { return !r.more.Load() && progress.Drained(r.conn) }

// Progress returns how many messages were handled so far, and whether the socket is idle.
func (r *Reader) Progress() progress.Progress { return r.messages.Of(r.conn) }
