package wall_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
	"github.com/knockwall/knockwall/ruleset"
)

// nowhere discards events and verdicts.
type nowhere struct{}

func (nowhere) Record(audit.Event)            {}
func (nowhere) Accept(uint32) error           { return nil }
func (nowhere) Repeat(uint32) error           { return nil }
func (nowhere) Refuse(uint32) error           { return nil }
func (nowhere) RefuseUpTo(uint32) error       { return nil }
func (nowhere) RepeatUpTo(uint32) error       { return nil }
func (nowhere) Stats() (nfqueue.Stats, error) { return nfqueue.Stats{}, nil }
func (nowhere) ReadNow()                      {}
func (nowhere) Drained() bool                 { return true }
func (nowhere) Progress() progress.Progress   { return progress.Progress{Idle: true} }
func (nowhere) Close() error                  { return nil }

// handlers returns the handlers of a wall that discards verdicts and events.
func handlers(t testing.TB, doors ...ruleset.Door) (log nflog.Handler, admitted, strangers nfqueue.Handler) {
	k := newKernel(nil)
	c := config(doors...)
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
	if err := wall.New(edges, nowhere{}).Apply(c); err != nil {
		t.Fatal(err)
	}
	return log, admitted, strangers
}

// The log prefixes of the door "ssh", and one of no door.
var (
	ssh      = []byte("ssh")
	trapped  = []byte("ssh trapped")
	datagram = []byte("ssh otp")
	foreign  = []byte("web otp")
)

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

// Nothing is allocated between reading a packet from the kernel and its verdict, step and
// audit event.
func TestThePathOfAPacketMakesNoGarbage(t *testing.T) {
	log, admitted, strangers := handlers(t, sshDoor())
	n := uint32(0)
	for _, port := range []uint16{7000, 8000, 9000} {
		n++
		log.Logged(ssh, opener(alice, tcp(port), n), nil)
	}
	check := func(what string, most float64, f func()) {
		t.Helper()
		checkAllocations(t, what, most, f)
	}
	check("a connection of a source with a window", 0, func() {
		n++
		admitted.Queued(n, opener(alice, tcp(22), n))
	})
	check("the same one again", 0, func() { admitted.Queued(n, opener(alice, tcp(22), n)) })
	check("a connection of a source of whose window nothing is known", 0, func() {
		n++
		admitted.Queued(n, opener(bob, tcp(22), n))
	})
	check("a stranger's connection", 0, func() {
		n++
		strangers.Queued(n, opener(bob, tcp(22), n))
	})
	// The audit trail does not separate the sources of knocks any more.
	some := sources(10_000)
	for _, source := range some[:1000] {
		n++
		log.Logged(ssh, opener(source, tcp(7000), n), nil)
	}
	i := 1000
	check("the first knock of a source", 0, func() {
		n++
		i++
		log.Logged(ssh, opener(some[i], tcp(7000), n), nil)
	})
}

func checkAllocations(t *testing.T, what string, most float64, f func()) {
	t.Helper()
	if got := testing.AllocsPerRun(3000, f); got > most {
		t.Errorf("%s: %v allocations, want at most %v", what, got, most)
	}
}

// The same holds for packets that strangers can send to a door that opens in other ways,
// up to where the audit trail sums them up.
func TestWhatStrangersSendToOtherDoorsMakesNoGarbage(t *testing.T) {
	d := passworded(trapping(rollingDoor("ssh", 22, time.Hour)))
	d.CloseSequence = ports(4000, 5000, 6000)
	methodOf[*passwords.OTP](d).Skew = otp.MaxSkew // so that it costs the most
	log, _, strangers := handlers(t, d)
	knocks := present(t, d, time.Now())
	some := sources(100_000)
	n := uint32(0)
	next := func(port packet.Port) packet.Packet {
		n++
		return opener(some[n], port, n)
	}
	likely := otp.Datagram([]byte("wrong"), alice, time.Now())
	garbage := make([]byte, otp.Size)
	// The audit trail does not separate their sources any more.
	for range 1000 {
		log.Logged(ssh, next(knocks[0]), nil)
		log.Logged(trapped, next(tcp(7001)), nil)
		log.Logged(datagram, next(otpPort), likely)
	}
	checkAllocations(t, "the first knock of a source", 0, func() { log.Logged(ssh, next(knocks[0]), nil) })
	checkAllocations(t, "the first knock to close", 0, func() { log.Logged(ssh, next(tcp(4000)), nil) })
	checkAllocations(t, "a trap", 0, func() { log.Logged(trapped, next(tcp(7001)), nil) })
	checkAllocations(t, "what could be a password", 0, func() { log.Logged(datagram, next(otpPort), likely) })
	checkAllocations(t, "garbage at the port for passwords", 0, func() { log.Logged(datagram, next(otpPort), garbage) })
	checkAllocations(t, "a connection", 0, func() { strangers.Queued(n, next(tcp(22))) })
	checkAllocations(t, "what no rule logs any more", 0, func() { log.Logged(foreign, next(otpPort), likely) })
}
