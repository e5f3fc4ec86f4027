package progress_test

import (
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/progress"
)

// A daemon hangs only if there was something to handle at both times, and nothing was
// handled between them.
func TestStuck(t *testing.T) {
	for _, earlierIdle := range []bool{false, true} {
		for _, idle := range []bool{false, true} {
			for _, handled := range []uint64{0, 1, 1000} {
				earlier := progress.Progress{Done: 7, Idle: earlierIdle}
				now := progress.Progress{Done: 7 + handled, Idle: idle}
				if got, want := now.Stuck(earlier), !earlierIdle && !idle && handled == 0; got != want {
					t.Errorf("%+v and then %+v: stuck %t", earlier, now, got)
				}
			}
		}
	}
	if (progress.Progress{}).Stuck(progress.Progress{Idle: true}) {
		t.Error("what has just come is stuck")
	}
}

// routes connects to rtnetlink, which needs no privilege.
func routes(t *testing.T) *netlink.Conn {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask makes the kernel send its list of interfaces, of which there is at least one. The
// list has arrived when ask returns.
func ask(t *testing.T, conn *netlink.Conn) netlink.Message {
	t.Helper()
	request, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func receive(t *testing.T, conn *netlink.Conn) {
	t.Helper()
	if _, err := conn.Receive(); err != nil { // the whole list
		t.Fatal(err)
	}
}

func TestASocketIsDrainedWhenAllWasReceived(t *testing.T) {
	conn := routes(t)
	for range 3 {
		if !progress.Drained(conn) {
			t.Fatal("nothing was asked for, and it is not drained")
		}
		ask(t, conn)
		for range 2 { // Drained reads nothing
			if progress.Drained(conn) {
				t.Fatal("the answer waits, and it is drained")
			}
		}
		receive(t, conn)
	}
	ask(t, conn)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if !progress.Drained(conn) {
		t.Error("of a closed socket something is to come")
	}
}

func TestAPulseIsOfWhatWaitsAndOfWhatIsHandled(t *testing.T) {
	conn := routes(t)
	var c progress.Counter
	expect := func(when string, want progress.Progress) {
		t.Helper()
		if got := c.Of(conn); got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	expect("at first", progress.Progress{Idle: true})
	ask(t, conn)
	expect("a message waits", progress.Progress{})
	receive(t, conn)
	c.Begin()
	expect("it is being handled", progress.Progress{})
	c.Done()
	expect("it was handled", progress.Progress{Done: 1, Idle: true})
	c.Begin()
	ask(t, conn)
	expect("one is being handled, and one waits", progress.Progress{Done: 1})
	c.Done()
	expect("one waits", progress.Progress{Done: 2})
	conn.Close()
	expect("it is closed", progress.Progress{Done: 2, Idle: true})
}

// Reading the progress does not hinder handlers, and sees the number of messages grow.
func TestAPulseIsTakenWhileMessagesAreHandled(t *testing.T) {
	conn := routes(t)
	var c progress.Counter
	const messages, handlers = 20000, 2
	var all sync.WaitGroup
	for range handlers {
		all.Go(func() {
			for range messages {
				c.Begin()
				c.Done()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	last := c.Of(conn)
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(0):
		}
		now := c.Of(conn)
		if now.Done < last.Done || now.Done > messages*handlers {
			t.Fatalf("after %+v comes %+v", last, now)
		}
		last = now
	}
	if want := (progress.Progress{Done: messages * handlers, Idle: true}); c.Of(conn) != want {
		t.Errorf("in the end: %+v", c.Of(conn))
	}
}
