package nflog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nfnetlink"
	"github.com/knockwall/knockwall/internal/nfnetlink/sockettest"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/progress"
)

// toNowhere returns a sender, and the socket that receives what it sends.
func toNowhere(t testing.TB) (*nfnetlink.Sender, *netlink.Conn) {
	t.Helper()
	from, to := sockettest.Pair(t)
	s, err := nfnetlink.NewSender(from)
	if err != nil {
		t.Fatal(err)
	}
	return s, to
}

// The attributes of enum nfulnl_attr_type that this package does not read.
const (
	attrPacketHeader = 1
	attrIndex        = 4
	attrHardware     = 8
)

func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// logged returns the attributes of a message, as __build_packet_message of the
// kernel's net/netfilter/nfnetlink_log.c orders them.
func logged(prefix string, number uint32, payload []byte) []byte {
	return slices.Concat(
		attribute(attrPacketHeader, 0x08, 0x00, 0, 0), // ETH_P_IP, NF_INET_PRE_ROUTING
		attribute(attrPrefix, append([]byte(prefix), 0)...),
		attribute(attrIndex, 0, 0, 0, 2),
		attribute(attrHardware, 0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0),
		attribute(attrSequence, binary.BigEndian.AppendUint32(nil, number)...),
		attribute(attrPayload, payload...),
	)
}

// syn is a SYN from 192.0.2.1:40000 to 203.0.113.7:7000.
var syn = []byte{
	0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 203, 0, 113, 7,
	0x9c, 0x40, 0x1b, 0x58, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0,
}

// datagram returns one of UDP from 192.0.2.1:40000 to 203.0.113.7:7000.
func datagram(data string) []byte {
	b := slices.Clone(syn[:24])
	b[9] = 17
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...)
}

// notes are what a handler was called with.
type notes struct{ all []string }

func (n *notes) Logged(prefix []byte, p packet.Packet, data []byte) {
	n.all = append(n.all, fmt.Sprintf("%s: %s to %s %s %q", prefix, p.Source, p.Destination, p.Port, data))
}
func (n *notes) Lost(lost uint32) { n.all = append(n.all, fmt.Sprintf("lost %d", lost)) }
func (n *notes) Failed(err error) { n.all = append(n.all, err.Error()) }

func (n *notes) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, n.all); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	n.all = nil
}

// newLog returns a log without a group.
func newLog(t testing.TB, h Handler) *Log {
	s, _ := toNowhere(t)
	return &Log{handler: h, sender: s}
}

func TestAMessageIsHandedOnAsAPacket(t *testing.T) {
	n := &notes{}
	r := reading{newLog(t, n)}
	for i, message := range [][]byte{
		logged("ssh", 0, syn),
		logged("ssh otp", 1, datagram("123456")),
		logged("", 2, datagram("")),
		logged("ssh", 3, syn[:33]), // cut short
		logged("ssh", 4, nil),
		nil,
		logged("ssh", 5, syn)[:30],
	} {
		r.Message(message, i%2 == 0)
	}
	n.expect(t, "it was told",
		`ssh: 192.0.2.1 to 203.0.113.7 7000/tcp ""`,
		`ssh otp: 192.0.2.1 to 203.0.113.7 7000/udp "123456"`,
		`: 192.0.2.1 to 203.0.113.7 7000/udp ""`)
}

// The kernel numbers what it logs, and reports when a socket is full. A loss is reported
// once: as far as it is known at once, and the rest when the next packet shows it.
func TestWhatIsLostIsCountedOnce(t *testing.T) {
	const full = -1
	for _, tt := range []struct {
		name    string
		numbers []int64
		want    []string
	}{
		{"nothing", []int64{0, 1, 2}, nil},
		{"the first", []int64{2, 3}, []string{"lost 2"}},
		{"some in between", []int64{0, 1, 5, 6, 8}, []string{"lost 3", "lost 1"}},
		{"some, of which the socket says so", []int64{0, full, 6, 7}, []string{"lost 1", "lost 4"}},
		{"one, of which the socket says so", []int64{0, full, 2, 3}, []string{"lost 1"}},
		{"some, of which it says so twice", []int64{0, full, full, 6, 7}, []string{"lost 1", "lost 1", "lost 3"}},
		{"some, and what came before is read later", []int64{0, full, 1, 2, 5, 6}, []string{"lost 1", "lost 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &notes{}
			r := reading{newLog(t, n)}
			for _, number := range tt.numbers {
				if number == full {
					if !r.ReadError(os.NewSyscallError("read", unix.ENOBUFS)) {
						t.Error("it does not go on")
					}
				} else {
					r.Message(logged("", uint32(number), nil), true)
				}
			}
			n.expect(t, "it was told", tt.want...)
		})
	}
	n := &notes{}
	r := reading{newLog(t, n)}
	r.next = 1<<32 - 2 // the numbers begin anew
	for _, number := range []uint32{1<<32 - 2, 1<<32 - 1, 0, 2} {
		r.Message(logged("", number, nil), true)
	}
	n.expect(t, "when the numbers begin anew", "lost 1")
}

func TestReadingGoesOnOrFails(t *testing.T) {
	for _, tt := range []struct {
		err  error
		goOn bool
		want []string
	}{
		{unix.EINTR, true, nil},
		{os.ErrDeadlineExceeded, false, nil},
		{os.ErrClosed, false, nil},
		{unix.EBADF, false, nil},
		{&nfnetlink.AnswerError{Errno: unix.EINVAL}, true, nil}, // to a request for another pace
		{errors.New("the kernel answers: no"), false, []string{"reading the NFLOG group: the kernel answers: no"}},
	} {
		n := &notes{}
		if got := (reading{newLog(t, n)}).ReadError(tt.err); got != tt.goOn {
			t.Errorf("%v: it goes on: %t", tt.err, got)
		}
		n.expect(t, tt.err.Error(), tt.want...)
	}
}

func TestAClosedLogHandsNothingOn(t *testing.T) {
	n := &notes{}
	l := newLog(t, n)
	l.closed = true
	reading{l}.Message(logged("ssh", 7, syn), true)
	reading{l}.ReadError(unix.ENOBUFS)
	if (reading{l}).ReadError(unix.EIO) {
		t.Error("it goes on")
	}
	n.expect(t, "it was told")
}

// The kernel is asked to batch messages when many come, and to send each at once when few
// do. Between these rates nothing changes.
func TestThePaceFollowsHowManyCome(t *testing.T) {
	type interval struct {
		messages int
		took     time.Duration
		want     string
	}
	const gathered, single = "64 messages, 16384 bytes", "1 messages, 4096 bytes"
	for _, tt := range []struct {
		name      string
		intervals []interval
	}{
		{"few", []interval{{1, time.Hour, ""}, {100, paceInterval, ""}, {200, paceInterval, ""}}},
		{"many", []interval{{201, paceInterval, gathered}, {201, paceInterval, ""}, {10_000, paceInterval, ""}}},
		{"many in a long time", []interval{{201, paceInterval + time.Millisecond, ""}, {1000, 10 * paceInterval, ""}}},
		{"very many in a long time", []interval{{2001, 10 * paceInterval, gathered}}},
		{"before the interval is over", []interval{{150, paceInterval - 1, ""}, {150, 1, gathered}}},
		{"many, and fewer", []interval{{300, paceInterval, gathered}, {200, paceInterval, ""}, {101, paceInterval, ""}}},
		{"many, and few", []interval{{300, paceInterval, gathered}, {100, paceInterval, single}, {200, paceInterval, ""}}},
		{"many, and one after long", []interval{{300, paceInterval, gathered}, {1, time.Hour, single}, {1, time.Hour, ""}}},
		{"many, again", []interval{{300, paceInterval, gathered}, {1, time.Hour, single}, {300, paceInterval, gathered}}},
		{"what came before does not count", []interval{{200, paceInterval, ""}, {200, paceInterval, ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, to := toNowhere(t)
			now := time.Unix(1_740_000_000, 0)
			l := &Log{number: 7100, sender: s}
			l.pace.began = now
			for i, step := range tt.intervals {
				now = now.Add(step.took)
				l.pace.messages += step.messages
				l.keepPace(now)
				if got := toldToSend(t, to); got != step.want {
					t.Errorf("after interval %d it is told %q, want %q", i, got, step.want)
				}
				if batched := l.pace.batched; step.want != "" && batched != (step.want == gathered) {
					t.Errorf("after interval %d: batched %t", i, batched)
				}
			}
		})
	}
}

// toldToSend returns how the kernel was asked to send the messages of group 7100.
func toldToSend(t *testing.T, to *netlink.Conn) string {
	t.Helper()
	if progress.Drained(to) { // what was sent is there at once
		return ""
	}
	messages, err := to.Receive()
	if err != nil {
		t.Fatal(err)
	}
	m := messages[0]
	if want := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0x1b, 0xbc}; m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8|msgConfig || !bytes.HasPrefix(m.Data, want) {
		t.Fatalf("what is sent: %+v", m)
	}
	words := map[uint16]uint32{}
	for a, rest, ok := nfnetlink.NextAttribute(m.Data[4:]); ok; a, rest, ok = nfnetlink.NextAttribute(rest) {
		words[a.Kind] = binary.BigEndian.Uint32(a.Value)
	}
	return fmt.Sprintf("%d messages, %d bytes", words[attrConfigQThreshold], words[attrConfigBufferSize])
}

// The first packet of a group ends no interval.
func TestTheFirstMessageBeginsTheFirstInterval(t *testing.T) {
	l := newLog(t, &notes{})
	l.pace.messages = 1000
	l.keepPace(time.Now())
	if l.pace.batched || l.pace.messages != 0 || l.pace.began.IsZero() {
		t.Errorf("%+v", l.pace)
	}
}

// deaf ignores everything.
type deaf struct{ heard int }

func (d *deaf) Logged([]byte, packet.Packet, []byte) { d.heard++ }
func (d *deaf) Lost(uint32)                          {}
func (d *deaf) Failed(error)                         {}

func TestHandingPacketsOnAllocatesNothing(t *testing.T) {
	for name, payload := range map[string][]byte{"a SYN": syn, "a datagram": datagram("123456"), "garbage": {1, 2, 3}} {
		h := &deaf{}
		l := newLog(t, h)
		message := logged("ssh", 0, payload)
		n := testing.AllocsPerRun(3000, func() {
			l.next = 0 // so that nothing is lost
			reading{l}.Message(message, true)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if want := 3001; name != "garbage" && h.heard != want {
			t.Errorf("%s: %d were handed on, want %d", name, h.heard, want)
		}
	}
}

func TestKeepingThePaceAllocatesNothing(t *testing.T) {
	l := newLog(t, &deaf{})
	now := time.Now()
	changes := 0
	n := testing.AllocsPerRun(20, func() { // there is room for that many, because nobody reads
		now = now.Add(paceInterval)
		if l.pace.messages = 300; l.pace.batched {
			l.pace.messages = 0
		}
		before := l.pace.batched
		l.keepPace(now)
		if before != l.pace.batched {
			changes++
		}
	})
	if n != 0 || changes < 20 {
		t.Errorf("%v allocations, %d changes", n, changes)
	}
}

// BenchmarkMessage measures a logged packet from the kernel's message to the handler.
func BenchmarkMessage(b *testing.B) {
	l := newLog(b, &deaf{})
	message := logged("ssh", 0, syn)
	b.ReportAllocs()
	for b.Loop() {
		l.next = 0
		reading{l}.Message(message, false)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(logged("ssh", 0, syn))
	f.Add(logged("ssh otp", 1<<31, datagram("123456")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		n := &notes{}
		reading{&Log{handler: n}}.Message(message, false)
		if len(n.all) > 1+len(message)/8 {
			t.Errorf("of %d bytes: %q", len(message), n.all)
		}
	})
}
