package knocks

import (
	"net/netip"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// The tests of what knocks mean, with raw segments, so that what is sent is exact. Each
// row is another client at the same two doors. The door "long" has the sequence of "ssh"
// and one more knock.
const knockRules = `
wall { reorder = "50ms" }
door "ssh" {
  ports       = [22]
  sequence    = [7001, "8001/udp", 9001]
  seq_timeout = "2s"
  traps       = 0 # which have tests of their own
  penalty_prefix = { ipv6 = 128 }
}
door "long" {
  ports       = [23]
  sequence    = [7001, "8001/udp", 9001, 6001]
  seq_timeout = "2s"
  traps       = 0
  penalty_prefix = { ipv6 = 128 }
}
`

// stroke is one knock of a row: a port, and what is unusual about the packet.
type stroke struct {
	port packet.Port
	same bool // the same segment as the last one to this port: a retransmission
	// flags are TCP flags; 0: SYN
	flags packet.Flags
	// after is the pause before it
	after time.Duration
}

func TestWhatKnocksMean(t *testing.T) {
	t.Parallel()
	first, second, third, fourth := lab.TCP(7001), lab.UDP(8001), lab.TCP(9001), lab.TCP(6001)
	hit := func(p packet.Port) stroke { return stroke{port: p} }
	again := func(p packet.Port) stroke { return stroke{port: p, same: true} }
	with := func(p packet.Port, f packet.Flags) stroke { return stroke{port: p, flags: f} }
	later := func(d time.Duration, p packet.Port) stroke { return stroke{port: p, after: d} }

	rows := []struct {
		name    string
		strokes []stroke
		opens   []string
	}{
		{"in order", []stroke{hit(first), hit(second), hit(third)}, []string{"ssh"}},
		{"a sequence that goes on opens the longer door, too",
			[]stroke{hit(first), hit(second), hit(third), hit(fourth)}, []string{"ssh", "long"}},
		{"a knock is missing", []stroke{hit(first), hit(third)}, nil},
		{"each SYN is retransmitted",
			[]stroke{hit(first), again(first), hit(second), again(second), again(first), hit(third), again(third)}, []string{"ssh"}},
		{"the step just taken is dialled again",
			[]stroke{hit(first), hit(first), hit(first), hit(second), hit(second), hit(third)}, []string{"ssh"}},
		{"two knocks have overtaken each other", []stroke{hit(second), hit(first), hit(third)}, []string{"ssh"}},
		{"the last two have overtaken each other", []stroke{hit(first), hit(third), hit(second)}, []string{"ssh"}},
		{"the last knock has overtaken all", []stroke{hit(third), hit(first), hit(second)}, []string{"ssh"}},
		{"the first knock comes last", []stroke{hit(second), hit(third), hit(first)}, []string{"ssh"}},
		{"all knocks are the other way round", []stroke{hit(third), hit(second), hit(first)}, nil},
		{"a SYN of a re-dial is retransmitted",
			[]stroke{hit(first), hit(first), hit(second), again(first), hit(third)}, []string{"ssh"}},
		{"the missing knock comes too late to have been overtaken",
			[]stroke{hit(first), hit(third), later(200*time.Millisecond, second)}, nil},
		{"an earlier knock ends the attempt",
			[]stroke{hit(first), hit(second), hit(first), later(200*time.Millisecond, third)}, nil},
		{"and begins a new one, if it is the first",
			[]stroke{hit(first), hit(second), hit(first), hit(second), hit(third)}, []string{"ssh"}},
		{"a port that nothing serves ends the attempt",
			[]stroke{hit(first), hit(lab.TCP(7002)), hit(second), hit(third)}, nil},
		{"before the first knock it is not seen",
			[]stroke{hit(lab.TCP(7002)), hit(lab.UDP(9001)), hit(first), hit(second), hit(third)}, []string{"ssh"}},
		{"the sequence takes too long",
			[]stroke{hit(first), hit(second), later(2100*time.Millisecond, third)}, nil},
		{"a SYN-ACK is no knock", []stroke{hit(first), hit(second), with(third, packet.SYN|packet.ACK)}, nil},
		{"a FIN is no knock", []stroke{hit(first), hit(second), with(third, packet.FIN)}, nil},
		{"an ACK is no knock", []stroke{hit(first), hit(second), with(third, packet.ACK)}, nil},
		{"an RST is no knock", []stroke{hit(first), hit(second), with(third, packet.RST)}, nil},
		{"nor do they end an attempt",
			[]stroke{hit(first), with(third, packet.ACK), with(first, packet.FIN), hit(second), hit(third)}, []string{"ssh"}},
		{"the wrong protocol is no knock", []stroke{hit(first), hit(lab.TCP(8001)), hit(third)}, nil},
	}
	for _, family := range []struct {
		name   string
		server netip.Addr
	}{{"IPv4", lab.Server4}, {"IPv6", lab.Server6}} {
		t.Run(family.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			l.ServeTCP(23)
			d := l.Run(knockRules)
			for i, row := range rows {
				t.Run(row.name, func(t *testing.T) {
					t.Parallel()
					from := lab.Source(i+1, family.server)
					strike(l, t, from, family.server, row.strokes)
					for door, port := range map[string]int{"ssh": 22, "long": 23} {
						want := false
						for _, name := range row.opens {
							want = want || name == door
						}
						if got := l.Admitted(want, from, family.server, port); got != want {
							t.Errorf("the door %s: admitted %v, want %v", door, got, want)
						}
						opened := []string{"opened", "door=" + door, "source=" + from.String() + " "}
						if want {
							d.WaitFor(opened...)
						} else if d.Logged(opened...) > 0 {
							t.Errorf("the door %s was opened", door)
						}
					}
				})
			}
		})
	}
}

// strike sends the strokes of a row, each from a new source port unless it is a
// retransmission.
func strike(l *lab.Lab, t *testing.T, from, to netip.Addr, strokes []stroke) {
	t.Helper()
	last := map[packet.Port]forge.Segment{}
	for i, s := range strokes {
		if s.after > 0 {
			time.Sleep(s.after) // the pause that the row tests
		}
		seg, known := last[s.port]
		if !s.same || !known {
			flags := s.flags
			if flags == 0 {
				flags = packet.SYN
			}
			seg = forge.Segment{From: from, To: to, SourcePort: uint16(40000 + i), Port: s.port, Sequence: uint32(1000 * i), Flags: flags}
			last[s.port] = seg
		}
		l.Send(seg)
	}
}

// Knocking at an open door refreshes its window to the full length. There is never a
// second window.
func TestKnockingAgainRefreshesTheWindow(t *testing.T) {
	t.Parallel()
	const window, first = 20 * time.Second, 8 * time.Second
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(`door "ssh" {
  ports = [22]
  sequence = [7001, 8001, 9001]
  window = "20s"
}`)
	l.Knock(lab.Client4, lab.Server4, lab.TCP(7001), lab.TCP(8001), lab.TCP(9001))
	d.WaitFor("opened", "door=ssh")
	left := func() time.Duration {
		open := d.Status().Windows
		if len(open) != 1 {
			t.Fatalf("the windows are %+v, want one", open)
		}
		return time.Duration(open[0].LeftSeconds * float64(time.Second))
	}
	eventually.True(t, "a part of the window is over", func() bool { return left() < window-first })
	began := time.Now()
	l.Knock(lab.Client4, lab.Server4, lab.TCP(7001), lab.TCP(8001), lab.TCP(9001))
	d.WaitFor("refreshed", "door=ssh")
	// However long this takes: the whole time, without what has passed since the knocks.
	if got := left(); got < window-time.Since(began)-time.Second {
		t.Errorf("after the refresh the window has %s left", got)
	}
	if got := l.KernelWindows(); len(got) != 1 || got[0].Left < window-time.Since(began)-time.Second {
		t.Errorf("after the refresh the kernel has %+v, want one window of %s", got, window)
	}
	// After the first window's end the second one's length counts.
	eventually.True(t, "the first window would be over", func() bool { return left() < first })
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("refused within the refreshed window")
	}
	d.WaitForExpiry()
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("admitted after the window's end")
	}
	if n := d.Logged("opened", "door=ssh"); n != 1 {
		t.Errorf("the door was opened %d times, want once", n)
	}
}

// One source's end or traffic does not affect another source. In knockd, all attempts end
// when one ends.
func TestSourcesAreIndependent(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.Run(`door "ssh" {
  ports = [22]
  sequence = [7001, 8001, 9001]
}`)
	a, b := lab.Source(1, lab.Server4), lab.Source(2, lab.Server4)
	l.Knock(a, lab.Server4, lab.TCP(7001), lab.TCP(8001))
	l.Knock(b, lab.Server4, lab.TCP(7001), lab.TCP(8001), lab.TCP(7001), lab.TCP(8001), lab.TCP(9001)) // one attempt fails, one succeeds
	if !l.Admits(b, lab.Server4, 22) {
		t.Error("b is refused")
	}
	if l.AdmitsAtOnce(a, lab.Server4, 22) {
		t.Error("a is admitted before its last knock")
	}
	l.Knock(a, lab.Server4, lab.TCP(9001))
	if !l.Admits(a, lab.Server4, 22) {
		t.Error("a is refused after its last knock")
	}
}

// All addresses in one prefix are one source if the door says so.
func TestSourcePrefix(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(`door "ssh" {
  ports = [22]
  sequence = [7001, 8001, 9001]
  source_prefix = { ipv4 = 24, ipv6 = 64 }
}`)
	for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
		l.Knock(lab.Source(1, to), to, lab.TCP(7001))
		l.Knock(lab.Source(2, to), to, lab.TCP(8001))
		l.Knock(lab.Source(3, to), to, lab.TCP(9001))
		if !l.Admits(lab.Source(4, to), to, 22) {
			t.Errorf("%s: a neighbour in the prefix is refused", to)
		}
		if l.Admitted(to.Is6(), lab.Source(1<<10, to), to, 22) != to.Is6() {
			t.Errorf("%s: who shares 64 bits is one source, who shares 16 is not", to)
		}
	}
	d.WaitFor("opened", "source=10.1.0.0/24")
	d.WaitFor("opened", "source=2001:db8:1::/64")
}

// A window admits max_connections connections and then ends. A retransmitted SYN is not a
// second connection.
func TestMaxConnections(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(`door "ssh" {
  ports = [22]
  sequence = [7001, 8001, 9001]
  max_connections = 2
}`)
	knocks := []packet.Port{lab.TCP(7001), lab.TCP(8001), lab.TCP(9001)}
	for round := range 2 {
		l.Knock(lab.Client4, lab.Server4, knocks...)
		for n := range 2 {
			if !l.Admits(lab.Client4, lab.Server4, 22) {
				t.Fatalf("round %d: connection %d is refused", round, n+1)
			}
		}
		if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
			t.Fatalf("round %d: a third connection is admitted", round)
		}
		if n := len(l.KernelWindows()); n != 0 {
			t.Fatalf("round %d: the kernel has %d windows, want none", round, n)
		}
	}
	d.WaitFor("closed", "max_connections is reached")

	// If the answer is lost, the client retransmits the SYN. It is the same connection.
	other := lab.Source(1, lab.Server4)
	l.Knock(other, lab.Server4, knocks...)
	syn := forge.Segment{From: other, To: lab.Server4, SourcePort: 40000, Port: lab.TCP(22), Sequence: 7, Flags: packet.SYN}
	l.Send(syn, syn, syn)
	if !l.Admits(other, lab.Server4, 22) {
		t.Error("a SYN sent again was counted as a second connection")
	}
	if l.AdmitsAtOnce(other, lab.Server4, 22) {
		t.Error("a third connection is admitted")
	}
}
