package nfqueue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nfnetlink"
	"github.com/knockwall/knockwall/internal/nfnetlink/sockettest"
	"github.com/knockwall/knockwall/internal/packet"
)

// The attributes of enum nfqnl_attr_type that this package does not read.
const (
	attrIndex     = 5
	attrTimestamp = 4
	attrHardware  = 9
	attrInfo      = 15
)

func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// waiting returns the attributes of a message, as nfqnl_build_packet_message of the
// kernel's net/netfilter/nfnetlink_queue.c orders them.
func waiting(id uint32, payload []byte) []byte {
	return slices.Concat(
		attribute(attrPacketHeader, append(binary.BigEndian.AppendUint32(nil, id), 0x08, 0, 0)...), // ETH_P_IP, NF_INET_PRE_ROUTING
		attribute(attrIndex, 0, 0, 0, 2),
		attribute(attrHardware, 0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0),
		attribute(attrInfo, 0, 0, 0, 1),
		attribute(attrPayload, payload...),
	)
}

// syn is a SYN from 192.0.2.1:40000 to 203.0.113.7:22.
var syn = []byte{
	0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 203, 0, 113, 7,
	0x9c, 0x40, 0, 22, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
}

// notes are what a handler was called with.
type notes struct{ all []string }

func (n *notes) Queued(id uint32, p packet.Packet) {
	n.all = append(n.all, fmt.Sprintf("%d: %s to %s %s", id, p.Source, p.Destination, p.Port))
}
func (n *notes) Unreadable(id uint32) { n.all = append(n.all, fmt.Sprintf("%d: unreadable", id)) }
func (n *notes) Failed(err error)     { n.all = append(n.all, err.Error()) }

func (n *notes) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, n.all); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	n.all = nil
}

func TestAMessageIsHandedOnAsAPacketThatWaits(t *testing.T) {
	n := &notes{}
	r := reading{&Queue{handler: n}}
	for _, message := range [][]byte{
		waiting(7, syn),
		waiting(1<<32-1, syn),
		waiting(8, syn[:33]),
		waiting(9, nil),
		waiting(10, syn)[:12],
		attribute(attrPayload, syn...),
		attribute(attrPacketHeader, 1, 2, 3),
		nil,
	} {
		r.Message(message, true)
	}
	n.expect(t, "it was told",
		"7: 192.0.2.1 to 203.0.113.7 22/tcp",
		"4294967295: 192.0.2.1 to 203.0.113.7 22/tcp",
		"8: unreadable", "9: unreadable", "10: unreadable")
}

func TestReadingGoesOnOrFails(t *testing.T) {
	for _, tt := range []struct {
		err  error
		goOn bool
		want []string
	}{
		{os.NewSyscallError("read", unix.ENOBUFS), true, nil},
		{fmt.Errorf("the kernel answers: %w", unix.ENOENT), true, nil}, // to a verdict that came too late
		{unix.EINTR, true, nil},
		{os.ErrDeadlineExceeded, false, nil},
		{os.ErrClosed, false, nil},
		{unix.EBADF, false, nil},
		{errors.New("the kernel answers: no"), false, []string{"reading queue 7101: the kernel answers: no"}},
	} {
		n := &notes{}
		q := &Queue{handler: n, config: Config{Number: 7101}}
		if got := (reading{q}).ReadError(tt.err); got != tt.goOn {
			t.Errorf("%v: it goes on: %t", tt.err, got)
		}
		n.expect(t, tt.err.Error(), tt.want...)
	}
}

// toNowhere returns a queue, and the socket that receives its verdicts.
func toNowhere(t testing.TB) (*Queue, *netlink.Conn) {
	t.Helper()
	from, to := sockettest.Pair(t)
	s, err := nfnetlink.NewSender(from)
	if err != nil {
		t.Fatal(err)
	}
	return &Queue{sender: s, config: Config{Number: 7101, RefusedMark: 0x6b776c}}, to
}

// What libnetfilter_queue calls NF_ACCEPT and NF_REPEAT are 1 and 4.
func TestVerdicts(t *testing.T) {
	q, to := toNowhere(t)
	for _, tt := range []struct {
		name  string
		give  func(uint32) error
		kind  byte
		words []uint32
	}{
		{"Accept", q.Accept, msgVerdict, []uint32{1, 77}},
		{"Repeat", q.Repeat, msgVerdict, []uint32{4, 77}},
		{"Refuse", q.Refuse, msgVerdict, []uint32{4, 77, 0x6b776c}},
		{"RepeatUpTo", q.RepeatUpTo, msgVerdictBatch, []uint32{4, 77}},
		{"RefuseUpTo", q.RefuseUpTo, msgVerdictBatch, []uint32{4, 77, 0x6b776c}},
	} {
		if err := tt.give(77); err != nil {
			t.Fatal(err)
		}
		got, err := to.Receive()
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Concat([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0x1b, 0xbd},
			nfnetlink.AppendAttribute(nil, attrVerdictHeader, tt.words[:2]...))
		if len(tt.words) == 3 {
			want = nfnetlink.AppendAttribute(want, attrMark, tt.words[2])
		}
		if m := got[0]; byte(m.Header.Type) != tt.kind || m.Header.Type>>8 != unix.NFNL_SUBSYS_QUEUE || !slices.Equal(m.Data, want) {
			t.Errorf("%s: %+v, want type %d and %x", tt.name, m, tt.kind, want)
		}
	}
	closed, conn := toNowhere(t)
	conn.Close()
	if err := closed.Accept(77); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("to nobody: %v", err)
	}
}

// accepting accepts every packet.
type accepting struct {
	q      *Queue
	judged int
	err    error
}

func (a *accepting) Queued(id uint32, _ packet.Packet) { a.judged++; a.err = a.q.Accept(id) }
func (a *accepting) Unreadable(id uint32)              { a.judged++; a.err = a.q.Refuse(id) }
func (a *accepting) Failed(error)                      {}

// toTheKernel returns a queue whose verdicts the kernel reads. It answers that the test
// has no privilege for them.
func toTheKernel(t testing.TB) *accepting {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s, err := nfnetlink.NewSender(conn)
	if err != nil {
		t.Fatal(err)
	}
	q := &Queue{sender: s, config: Config{Number: 1<<16 - 1, RefusedMark: 0x6b776c}}
	a := &accepting{q: q}
	q.handler = a
	return a
}

func TestJudgingAPacketAllocatesNothing(t *testing.T) {
	for name, payload := range map[string][]byte{"a SYN": syn, "garbage": {1, 2, 3}} {
		a := toTheKernel(t)
		message := waiting(7, payload)
		n := testing.AllocsPerRun(1000, func() { reading{a.q}.Message(message, true) })
		if n != 0 || a.err != nil || a.judged != 1001 {
			t.Errorf("%s: %v allocations, %d verdicts, %v", name, n, a.judged, a.err)
		}
	}
}

// BenchmarkMessage measures a packet from the kernel's message until its verdict is on
// its way to the kernel.
func BenchmarkMessage(b *testing.B) {
	a := toTheKernel(b)
	message := waiting(7, syn)
	b.ReportAllocs()
	for b.Loop() {
		reading{a.q}.Message(message, true)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(waiting(7, syn))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		n := &notes{}
		reading{&Queue{handler: n}}.Message(message, true)
		if len(n.all) > 1 {
			t.Errorf("%q", n.all)
		}
	})
}
