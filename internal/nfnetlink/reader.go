package nfnetlink

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/progress"
)

// maxDatagram is as long as one from the kernel can be: NFULNL_NLBUFSIZ_MAX of
// net/netfilter/nfnetlink_log.c.
const maxDatagram = 128 << 10

// Handler takes what is read. It is called from one goroutine.
type Handler interface {
	// Message takes the attributes of a message, which are not to be kept, and whether
	// it is the last one of its datagram.
	Message(attributes []byte, last bool)
	// ReadError takes an error of the socket, or one that the kernel has answered
	// with, and reports whether reading is to go on.
	ReadError(err error) bool
}

// AnswerError is what the kernel says of a request.
type AnswerError struct{ Errno syscall.Errno }

func (e *AnswerError) Error() string { return "the kernel answers: " + e.Errno.Error() }
func (e *AnswerError) Unwrap() error { return e.Errno }

// Take sets up a socket that a library has opened, by that library's register, which is
// given the function that it is to call when it cannot read; and then reads it in its
// place. It ends with the returned function, which is not nil.
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

// Reader reads a socket in place of the library that has opened it.
type Reader struct {
	conn     *netlink.Conn
	raw      syscall.RawConn
	handler  Handler
	messages progress.Counter
	more     atomic.Bool // of the datagram that is being handled are messages left

	datagram []byte
	read     func(fd uintptr) bool // made once, as it would be allocated each time
	n        int                   // what it read,
	err      error                 // or why it did not
}

// newReader makes a Reader of a socket. It reads once it has taken over.
func newReader(conn *netlink.Conn, h Handler) (*Reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &Reader{conn: conn, raw: raw, handler: h, datagram: make([]byte, maxDatagram)}
	r.read = func(fd uintptr) bool {
		r.messages.Begin()
		if r.n, r.err = unix.Read(int(fd), r.datagram); r.err != unix.EAGAIN {
			return true // and it is done when it was handled
		}
		r.messages.Cancel()
		return false
	}
	return r, nil
}

// instead is the function that go-nflog and go-nfqueue call when they cannot read.
// Given to them when they begin to, it reads in their place until ctx ends or the
// handler has enough: the libraries set the socket up, and end it.
func (r *Reader) instead(ctx context.Context) func(error) int {
	return func(error) int {
		// Who ends ctx sets a deadline in the past only after that.
		if err := r.conn.SetReadDeadline(time.Time{}); err == nil {
			r.run(ctx)
		}
		return 1
	}
}

// takeOver interrupts the library, which has begun to read. Nothing may have been sent
// to the socket yet.
func (r *Reader) takeOver() error {
	return r.conn.SetReadDeadline(time.Unix(1, 0))
}

func (r *Reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.raw.Read(r.read) // waits until there is something
		has := err == nil
		if has && r.err != nil {
			err = os.NewSyscallError("read", r.err)
		}
		ended := err != nil && ctx.Err() != nil // it was interrupted, or the socket closed
		if !ended && err != nil {
			ended = !r.handler.ReadError(err)
		} else if !ended {
			ended = !r.handle(r.datagram[:r.n])
		}
		if has {
			r.messages.Done()
		}
		if ended {
			return
		}
	}
}

// handle hands on the messages of a datagram.
func (r *Reader) handle(datagram []byte) (goOn bool) {
	defer r.more.Store(false) // whatever came last
	for m, rest, ok := next(datagram); ok; m, rest, ok = next(rest) {
		switch m.kind {
		case unix.NLMSG_NOOP, unix.NLMSG_DONE:
		case unix.NLMSG_ERROR:
			if err := answered(m.body); err != nil && !r.handler.ReadError(err) {
				return false
			}
		default:
			if len(m.body) >= familyLength {
				last := len(rest) <= headerLength+familyLength // which say that it is done
				r.more.Store(!last)
				r.handler.Message(m.body[familyLength:], last)
			}
		}
	}
	return true
}

// answered returns the error that a struct nlmsgerr of linux/netlink.h is about, nil
// if it only says that all went well.
func answered(body []byte) error {
	if len(body) < 4 {
		return errors.New("the kernel's answer is cut short")
	}
	if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
		return &AnswerError{syscall.Errno(errno)}
	}
	return nil
}

// Drained reports whether everything has been taken off the socket that came so far,
// and whoever asks while a message is handled has the last of it.
func (r *Reader) Drained() bool { return !r.more.Load() && progress.Drained(r.conn) }

// Progress tells whether what is sent is being handled.
func (r *Reader) Progress() progress.Progress { return r.messages.Of(r.conn) }
