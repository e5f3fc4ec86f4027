package sessions

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/wall"
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
	eventually.True(t, "conntrack has the connection", func() bool { return len(flows(l, lab.Client4)) > 0 })
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

// The SYN that another firewall of this host drops behind the wall comes again. explain says
// so, while the window is open and afterwards, and only then.
func TestAnAdmittedSYNThatAnotherFirewallDropsIsSaidToComeAgain(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.RulesWith("", "30s"))
	explained := func(source netip.Addr) wall.Explanation {
		all, err := control.NewClient(d.Control).Explain(context.Background(), source.String())
		lab.Must(t, err)
		return all[0]
	}
	answered := lab.Source(1, lab.Server4)
	l.Enter(answered, lab.Server4)
	l.LoadNft("table inet other {\n chain input {\n type filter hook input priority filter; tcp dport 22 ct state new drop\n }\n}\n")
	l.Knock(lab.Client4, lab.Server4, lab.Knocks...)
	d.WaitFor("opened", "source="+lab.Client4.String())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.AdmitsWithin(lab.Client4, lab.Server4, 22, 9*time.Second)
	}()
	eventually.True(t, "explain says that the SYN comes again", func() bool {
		e := explained(lab.Client4)
		return e.In && e.Reason == wall.NotAnswered && strings.Contains(e.Sentence, "its SYN to 22/tcp has come ")
	})
	if e := explained(answered); e.Reason == wall.NotAnswered {
		t.Errorf("who is answered: %+v", e)
	}
	<-done
	d.WaitFor("expired", "source="+lab.Client4.String())
	if e := explained(lab.Client4); e.Reason != wall.WindowOver || !strings.Contains(e.Sentence, "While the window was open, its SYN to 22/tcp came ") {
		t.Errorf("after the window: %+v", e)
	}
}
