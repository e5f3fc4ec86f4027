// Package progress tells whether a netlink socket is read, and whether what is read is
// handled. So a daemon that hangs can be told from one that has nothing to do.
package progress

import (
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Counter counts messages before and after they are handled. It is safe for concurrent
// use.
type Counter struct{ begun, done atomic.Uint64 }

// Begin is called before a message is read, Done after it was handled, and Cancel if
// there was none to read.
func (c *Counter) Begin()  { c.begun.Add(1) }
func (c *Counter) Done()   { c.done.Add(1) }
func (c *Counter) Cancel() { c.begun.Add(^uint64(0)) }

// Progress is the state of a socket at one moment.
type Progress struct {
	Done uint64 // messages handled so far
	Idle bool   // no message waits, and none is being handled
}

// Of returns the progress of a socket whose messages the counter counts.
func (c *Counter) Of(conn *netlink.Conn) Progress {
	// The socket is asked first: a message that is off the socket by now has begun, and
	// so is not missed.
	drained := Drained(conn)
	done := c.done.Load()
	return Progress{Done: done, Idle: drained && c.begun.Load() == done}
}

// Stuck reports whether nothing was handled since an earlier Progress, though there was
// something to handle then and is now.
func (p Progress) Stuck(earlier Progress) bool {
	return !p.Idle && !earlier.Idle && p.Done == earlier.Done
}

// Drained reports whether every message that came so far has been read from the socket.
// The handler may still be handling the last one. A closed socket counts as drained.
func Drained(conn *netlink.Conn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	drained := true
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		drained = err != nil || n == 0
	})
	return drained
}
