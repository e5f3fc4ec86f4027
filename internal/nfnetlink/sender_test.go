package nfnetlink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mdlayher/netlink"

	"github.com/knockwall/knockwall/internal/nfnetlink/sockettest"
)

func newSender(t testing.TB, conn *netlink.Conn) *Sender {
	t.Helper()
	s, err := NewSender(conn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsSentIsARequestAboutAGroup(t *testing.T) {
	from, to := sockettest.Pair(t)
	s := newSender(t, from)
	for _, attributes := range [][]byte{
		AppendAttribute(nil, 2, 1, 0xdeadbeef),
		nil,
		AppendAttribute(AppendAttribute(nil, 3, 4), 5, 6, 7),
	} {
		if err := s.Send(unix.NFNL_SUBSYS_QUEUE, 3, 7101, attributes); err != nil {
			t.Fatal(err)
		}
		got, err := to.Receive()
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		want := netlink.Header{
			Length: uint32(headerLength + familyLength + len(attributes)),
			Type:   unix.NFNL_SUBSYS_QUEUE<<8 | 3,
			Flags:  netlink.Request,
		}
		if got[0].Header != want {
			t.Errorf("%+v, want %+v", got[0].Header, want)
		}
		// 7101, in network byte order.
		if body := append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0x1b, 0xbd}, attributes...); !bytes.Equal(got[0].Data, body) {
			t.Errorf("%x, want %x", got[0].Data, body)
		}
	}
}

func TestWhatCannotBeSentIsAnError(t *testing.T) {
	conn, err := netlink.Dial(unix.NETLINK_USERSOCK, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSender(t, conn)
	for range 2 { // the next time does not differ
		if err := s.Send(unix.NFNL_SUBSYS_QUEUE, 1, 2, nil); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("to nobody: %v", err)
		}
	}
	conn.Close()
	if err := s.Send(unix.NFNL_SUBSYS_QUEUE, 1, 2, nil); err == nil {
		t.Error("a closed socket takes it")
	}
}

// Goroutines of all queues send verdicts.
func TestWhatIsSentAtOnceIsNotMixedUp(t *testing.T) {
	from, to := sockettest.Pair(t)
	s := newSender(t, from)
	const senders, each = 8, 20 // there is room for that many if nobody reads
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			word := uint32(i) * 0x01010101
			attributes := AppendAttribute(nil, uint16(i), word, word)[:8+4*(i%2)]
			for range each {
				if err := s.Send(unix.NFNL_SUBSYS_QUEUE, uint8(i), uint16(i)*0x0101, attributes); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	counts := map[byte]int{}
	for range senders * each {
		messages, err := to.Receive()
		if err != nil {
			t.Fatal(err)
		}
		m := messages[0]
		i := byte(m.Header.Type)
		counts[i]++
		if len(m.Data) != familyLength+8+4*int(i%2) || bytes.Count(m.Data[2:4], []byte{i}) != 2 ||
			binary.NativeEndian.Uint16(m.Data[6:]) != uint16(i) || bytes.Count(m.Data[8:], []byte{i}) != len(m.Data)-8 {
			t.Fatalf("%x is not what %d sends", m.Data, i)
		}
	}
	all.Wait()
	for i, n := range counts {
		if n != each {
			t.Errorf("%d has sent %d", i, n)
		}
	}
}

func TestSendingAllocatesNothing(t *testing.T) {
	s := newSender(t, routes(t))
	attributes := AppendAttribute(nil, 2, 1, 7)
	// The kernel does not answer to that.
	send := func() {
		if err := s.Send(0, unix.NLMSG_NOOP, 7, attributes); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(1000, send); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}
