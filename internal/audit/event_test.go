package audit_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

var noon = time.Date(2026, time.March, 1, 12, 0, 0, 123_456_789, time.UTC)

func source(n int) packet.Source {
	addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return packet.Source{Prefix: netip.PrefixFrom(addr, 32)}
}

func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }

func TestEventAsText(t *testing.T) {
	alice := packet.Source{Prefix: netip.MustParsePrefix("192.0.2.1/32")}
	network := packet.Source{Prefix: netip.MustParsePrefix("2001:db8::/64")}
	tests := []struct {
		event audit.Event
		want  string
	}{
		{
			audit.Event{Kind: audit.Knock, Door: "ssh", Source: alice, Port: tcp(7000), Step: 1, Steps: 3},
			"2026-03-01T12:00:00.123Z knock      door=ssh source=192.0.2.1 port=7000/tcp step=1/3",
		},
		{
			audit.Event{Kind: audit.Knock, Door: "ssh", Source: network, Port: packet.Port{Number: 8000, Protocol: packet.UDP}, Steps: 3, Count: 7},
			"2026-03-01T12:00:00.123Z knock      door=ssh source=2001:db8::/64 port=8000/udp step=0/3 count=7",
		},
		{
			audit.Event{Kind: audit.Reset, Door: "ssh", Source: alice, Port: tcp(9000), Step: 1, Steps: 3, Code: audit.CodeWrongOrder, Reason: "wrong order", Count: 1},
			`2026-03-01T12:00:00.123Z reset      door=ssh source=192.0.2.1 port=9000/tcp step=1/3 code=wrong-order reason="wrong order"`,
		},
		{
			audit.Event{Kind: audit.Opened, Door: "ssh", Source: alice, Port: tcp(9000), Step: 3, Steps: 3, Window: 30 * time.Second},
			"2026-03-01T12:00:00.123Z opened     door=ssh source=192.0.2.1 port=9000/tcp step=3/3 window=30s",
		},
		{
			audit.Event{Kind: audit.Refreshed, Door: "ssh", Source: alice, Window: 90*time.Second + 1500*time.Microsecond},
			"2026-03-01T12:00:00.123Z refreshed  door=ssh source=192.0.2.1 window=1m30.002s",
		},
		{
			audit.Event{Kind: audit.Accepted, Door: "ssh", Source: alice, Port: tcp(22)},
			"2026-03-01T12:00:00.123Z accepted   door=ssh source=192.0.2.1 port=22/tcp",
		},
		{
			audit.Event{Kind: audit.Knock, Door: "ssh", Source: alice, Person: "alice@laptop", Key: "SHA256:abc", Port: tcp(62201)},
			"2026-03-01T12:00:00.123Z knock      door=ssh source=192.0.2.1 person=alice@laptop key=SHA256:abc port=62201/tcp",
		},
		{
			audit.Event{Kind: audit.Knock, Door: "ssh", Source: alice, Person: "Alice \"A\"\n"},
			`2026-03-01T12:00:00.123Z knock      door=ssh source=192.0.2.1 person="Alice \"A\"\n"`,
		},
		{
			audit.Event{Kind: audit.Refused, Door: "ssh", Source: alice, Port: tcp(22), Code: audit.CodeNoWindow, Count: 2},
			"2026-03-01T12:00:00.123Z refused    door=ssh source=192.0.2.1 port=22/tcp count=2 code=no-window",
		},
		{
			audit.Event{Kind: audit.Closed, Door: "ssh", Source: alice, Reason: `by "root"` + "\n"},
			`2026-03-01T12:00:00.123Z closed     door=ssh source=192.0.2.1 reason="by \"root\"\n"`,
		},
		{
			audit.Event{Kind: audit.Expired, Door: "ssh", Source: alice},
			"2026-03-01T12:00:00.123Z expired    door=ssh source=192.0.2.1",
		},
		{
			audit.Event{Kind: audit.Overloaded, Count: 12, Reason: "packets were lost"},
			`2026-03-01T12:00:00.123Z overloaded count=12 reason="packets were lost"`,
		},
		{
			audit.Event{Kind: audit.Trapped, Door: "ssh", Source: alice, Port: tcp(7001), Step: 2, Steps: 3, Count: 1},
			"2026-03-01T12:00:00.123Z trapped    door=ssh source=192.0.2.1 port=7001/tcp step=2/3",
		},
		{
			audit.Event{Kind: audit.Replayed, Door: "ssh", Source: alice, Port: tcp(9000), Count: 3},
			"2026-03-01T12:00:00.123Z replayed   door=ssh source=192.0.2.1 port=9000/tcp count=3",
		},
		{ // one line, whatever a command has written
			audit.Event{Kind: audit.Command, Door: "ssh", Source: alice, Code: audit.CodeExitCode, Reason: "on_open: exit code 3 after 5ms: no\nsuch table", Failed: true},
			`2026-03-01T12:00:00.123Z command    door=ssh source=192.0.2.1 code=exit-code failed=true reason="on_open: exit code 3 after 5ms: no\nsuch table"`,
		},
		{
			audit.Event{Kind: audit.Low, Door: "ssh", Reason: "sequences left in /etc/list: 2"},
			`2026-03-01T12:00:00.123Z low        door=ssh reason="sequences left in /etc/list: 2"`,
		},
		{ // must be distinct from a successful reload
			audit.Event{Kind: audit.Reloaded, Code: audit.CodeNotPutBack, Reason: "the former rules cannot be put back yet: no", Failed: true},
			`2026-03-01T12:00:00.123Z reloaded   code=not-put-back failed=true reason="the former rules cannot be put back yet: no"`,
		},
		{
			audit.Event{Kind: audit.Started},
			"2026-03-01T12:00:00.123Z started   ",
		},
		{
			audit.Event{Kind: audit.Stopped, Reason: "terminated"},
			`2026-03-01T12:00:00.123Z stopped    reason="terminated"`,
		},
	}
	var got bytes.Buffer
	sink := audit.Text(&got)
	var want strings.Builder
	for _, tt := range tests {
		tt.event.Time = noon
		sink.Record(tt.event)
		want.WriteString(tt.want + "\n")
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func TestEventSaysTheTimeOfItsZone(t *testing.T) {
	e := audit.Event{Time: noon.In(time.FixedZone("", 2*60*60)), Kind: audit.Stopped, Reason: "x"}
	if want := `2026-03-01T14:00:00.123+02:00 stopped    reason="x"`; e.String() != want {
		t.Errorf("%s, want %s", e, want)
	}
}

// lines takes each write as one line. It is not safe for concurrent use, so the race
// detector sees concurrent writes.
type lines []string

func (l *lines) Write(b []byte) (int, error) {
	*l = append(*l, string(b))
	return len(b), nil
}

func TestTextWritesWholeLinesFromManyGoroutines(t *testing.T) {
	const goroutines, events = 8, 100
	var got lines
	sink := audit.Text(&got)
	var wg sync.WaitGroup
	for n := range goroutines {
		wg.Go(func() {
			for range events {
				sink.Record(audit.Event{Time: noon, Kind: audit.Accepted, Door: fmt.Sprint(n)})
			}
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for _, line := range got {
		seen[line]++
	}
	for n := range goroutines {
		line := fmt.Sprintf("2026-03-01T12:00:00.123Z accepted   door=%d\n", n)
		if seen[line] != events {
			t.Errorf("%d lines say %q, want %d", seen[line], line, events)
		}
	}
	if len(got) != goroutines*events {
		t.Errorf("%d lines, want %d", len(got), goroutines*events)
	}
}
