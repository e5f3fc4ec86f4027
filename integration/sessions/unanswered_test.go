package sessions

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
)

// A connection that was under way and not answered when its port got a door is a
// stranger's: the wall judges each of its SYNs, however often the client sends it.
func TestAConnectionNotAnsweredBeforeTheDoorIsAStrangers(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	// The program accepts no connections for a while: conntrack keeps SYNs that TCP drops.
	var program int
	lab.Must(t, l.Server.Do(func() (err error) {
		if program, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(program, &unix.SockaddrInet4{Port: 22}); err != nil {
			return err
		}
		return unix.Listen(program, 0)
	}))
	t.Cleanup(func() { unix.Close(program) })
	const other = "door \"telnet\" {\n  ports = [23]\n  sequence = [4113, \"27911/udp\", 1840]\n}\n"
	d := l.Run(other) // it makes conntrack track connections
	connected := make(chan error, 1)
	for n := range 3 {
		if !l.AdmitsWithin(lab.Source(n+1, lab.Server4), lab.Server4, 22, lab.Short) {
			break // the queue of the program is full
		}
	}
	go func() {
		conn, err := l.Dial(lab.Client4, lab.Server4, 22, 12*time.Second)
		if err == nil {
			conn.Close()
		}
		connected <- err
	}()
	lab.Eventually(t, "conntrack has the connection", func() bool { return len(flows(l, lab.Client4)) > 0 })
	l.WriteRules(other + "door \"ssh\" {\n  ports = [22]\n  sequence = [5227, 911, 30411]\n}\n")
	_, err := control.NewClient(d.Control).Reload(context.Background(), "")
	lab.Must(t, err)
	go func() {
		for {
			conn, _, err := unix.Accept(program)
			if err != nil {
				return
			}
			unix.Close(conn)
		}
	}()
	if err := <-connected; err == nil {
		t.Error("a stranger gets in with a retransmitted SYN")
	}
	if c := d.Status().Doors[1].Counters; c.Refused < 2 {
		t.Errorf("%d SYNs were judged, so this shows nothing", c.Refused)
	}
}
