// Package pulse tells whether a netlink socket is being read, and what is read
// from it handled: by that a hung daemon is known from one with nothing to do.
package progress

import (
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Counter counts messages, from two sides of their handling.
type Counter struct{ begun, done atomic.Uint64 }

// Begin is called before a message is read, Done when it was handled, and Cancel when there
// was none.
func (c *Counter) Begin()  { c.begun.Add(1) }
func (c *Counter) Done()   { c.done.Add(1) }
func (c *Counter) Cancel() { c.begun.Add(^uint64(0)) }

// Progress is what a socket's handling is like at one moment.
type Progress struct {
	Done uint64 // messages handled so far
	Idle bool   // none waits, and none is being handled
}

// Of takes the pulse of a socket whose messages the counter counts.
func (c *Counter) Of(conn *netlink.Conn) Progress {
	// First the socket: what was taken off it by now has begun, and so it is not missed.
	drained := Drained(conn)
	done := c.done.Load()
	return Progress{Done: done, Idle: drained && c.begun.Load() == done}
}

// Stuck reports whether nothing was handled since an earlier pulse was taken,
// though there was something to handle then and is now.
func (p Progress) Stuck(earlier Progress) bool {
	return !p.Idle && !earlier.Idle && p.Done == earlier.Done
}

// Drained reports whether everything has been taken off the socket that came so
// far. The last message may still be on its way to who handles it. Of a closed
// socket nothing more will come.
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
