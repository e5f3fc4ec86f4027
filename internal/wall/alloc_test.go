package wall_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/pulse"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
)

// nowhere is where events go that nobody is to read, and verdicts.
type nowhere struct{}

func (nowhere) Record(audit.Event)            {}
func (nowhere) Accept(uint32) error           { return nil }
func (nowhere) Repeat(uint32) error           { return nil }
func (nowhere) Refuse(uint32) error           { return nil }
func (nowhere) RefuseUpTo(uint32) error       { return nil }
func (nowhere) RepeatUpTo(uint32) error       { return nil }
func (nowhere) Stats() (nfqueue.Stats, error) { return nfqueue.Stats{}, nil }
func (nowhere) Drained() bool                 { return true }
func (nowhere) Pulse() pulse.Pulse            { return pulse.Pulse{Idle: true} }
func (nowhere) Close() error                  { return nil }

// handlers returns those of a wall whose verdicts and events go nowhere.
func handlers(t testing.TB) (log nflog.Handler, admitted, strangers nfqueue.Handler) {
	k := newKernel(nil)
	c := config(sshDoor())
	c.Wall.MaxSources = 1 << 16
	k.configs = append(k.configs, c)
	edges := k.edges()
	edges.ListenLog = func(_ uint16, h nflog.Handler) (wall.Log, error) {
		log = h
		return nowhere{}, nil
	}
	edges.ListenQueue = func(c nfqueue.Config, h nfqueue.Handler) (wall.Queue, error) {
		if c.FailOpen {
			admitted = h
		} else {
			strangers = h
		}
		return nowhere{}, nil
	}
	if err := wall.New(edges, nowhere{}).Raise(c); err != nil {
		t.Fatal(err)
	}
	return log, admitted, strangers
}

// opener returns the n-th packet of a source, which opens a connection.
func opener(source netip.Addr, port packet.Port, n uint32) packet.Packet {
	return packet.Packet{
		Source: source, Destination: server, SourcePort: uint16(n), Port: port, Sequence: n, Flags: packet.SYN,
	}
}

// sources returns n sources.
func sources(n int) []netip.Addr {
	all := make([]netip.Addr, n)
	for i := range all {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24|uint32(i))
		all[i] = netip.AddrFrom4(b)
	}
	return all
}

// What the path of a packet allocates is the audit trail's: the list of what it
// passes on before an event, and the event that it sums up.
func TestThePathOfAPacketMakesNoGarbage(t *testing.T) {
	log, admitted, strangers := handlers(t)
	n := uint32(0)
	for _, port := range []uint16{7000, 8000, 9000} {
		n++
		log.Logged("ssh", opener(alice, tcp(port), n), nil)
	}
	check := func(what string, most float64, f func()) {
		t.Helper()
		if got := testing.AllocsPerRun(3000, f); got > most {
			t.Errorf("%s: %v allocations, want at most %v", what, got, most)
		}
	}
	check("a connection of a source with a window", 1, func() {
		n++
		admitted.Queued(n, opener(alice, tcp(22), n))
	})
	check("the same one again", 0, func() { admitted.Queued(n, opener(alice, tcp(22), n)) })
	check("a connection of a source of whose window nothing is known", 1, func() {
		n++
		admitted.Queued(n, opener(bob, tcp(22), n))
	})
	check("a stranger's connection", 0, func() {
		n++
		strangers.Queued(n, opener(bob, tcp(22), n))
	})
	// Once it is no more told apart in the audit trail who has knocked.
	some := sources(10_000)
	for _, source := range some[:1000] {
		n++
		log.Logged("ssh", opener(source, tcp(7000), n), nil)
	}
	i := 1000
	check("the first knock of a source", 1, func() {
		n++
		i++
		log.Logged("ssh", opener(some[i], tcp(7000), n), nil)
	})
}
