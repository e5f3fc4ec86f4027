//go:build linux

package nft

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/ruleset"
)

// answering returns a Kernel whose requests get these answers.
func answering(t *testing.T, answer nltest.Func) *Kernel {
	t.Helper()
	conn, err := nftables.New(nftables.WithTestDial(func(requests []netlink.Message) ([]netlink.Message, error) {
		if len(requests) == 0 {
			return nil, nil // there are no more answers
		}
		answers, err := answer(requests)
		for i := range answers {
			answers[i].Header.Sequence, answers[i].Header.PID = requests[0].Header.Sequence, requests[0].Header.PID
		}
		return answers, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	return &Kernel{conn: conn}
}

// of returns a message of nftables for the family inet.
func of(t *testing.T, kind uint16, encode func(*netlink.AttributeEncoder) error) netlink.Message {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	if err := encode(e); err != nil {
		t.Fatal(err)
	}
	data, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)},
		Data:   append([]byte{unix.NFPROTO_INET, 0, 0, 0}, data...),
	}
}

// isRequest reports whether a message asks nftables for something.
func isRequest(m netlink.Message, kind uint16) bool {
	return m.Header.Type == netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|kind)
}

// The transaction that installs a table names the generation of the ruleset in which the
// former table was read. The kernel refuses it if anything has changed since.
func TestATableIsInstalledOnlyIfNothingHasChangedSinceTheFormerOneWasRead(t *testing.T) {
	const generation = 4711
	var named []uint32 // by transaction
	k := answering(t, func(requests []netlink.Message) ([]netlink.Message, error) {
		switch first := requests[0]; {
		case isRequest(first, unix.NFT_MSG_GETGEN):
			return []netlink.Message{of(t, unix.NFT_MSG_NEWGEN, func(e *netlink.AttributeEncoder) error {
				e.Uint32(unix.NFTA_GEN_ID, generation)
				return nil
			})}, nil
		case isRequest(first, unix.NFT_MSG_GETTABLE):
			return nltest.Error(int(unix.ENOENT), requests)
		case first.Header.Type == unix.NFNL_MSG_BATCH_BEGIN:
			attributes, err := netlink.UnmarshalAttributes(first.Data[4:])
			if err != nil {
				return nil, err
			}
			var n uint32
			for _, a := range attributes {
				if a.Type == unix.NFNL_BATCH_GENID {
					n = binary.BigEndian.Uint32(a.Data)
				}
			}
			named = append(named, n)
		}
		return nltest.Error(int(unix.EPERM), requests)
	})
	if err := k.tryPut(&Table{Name: "knockwall"}, &contents{outline: outlineOf(&contents{})}, nil, "", true); err == nil {
		t.Error("a transaction that was refused is no error")
	}
	if !slices.Equal(named, []uint32{generation}) {
		t.Errorf("the transactions name the generations %d, want %d", named, generation)
	}
}

// An element without a timeout would be a window without an end. It is no window, and its
// set is made anew.
func TestAnElementWithoutATimeoutIsNoWindow(t *testing.T) {
	const left = 7 * time.Second
	number := doorKey(ruleset.DoorNumber("ssh"))
	element := func(e *netlink.AttributeEncoder, address []byte, left time.Duration) error {
		e.Nested(unix.NFTA_SET_ELEM_KEY, func(e *netlink.AttributeEncoder) error {
			e.Bytes(unix.NFTA_DATA_VALUE, append(address, number...))
			return nil
		})
		if left > 0 {
			e.Uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(left.Milliseconds()))
			e.Uint64(unix.NFTA_SET_ELEM_EXPIRATION, uint64(left.Milliseconds()))
		}
		return nil
	}
	m := of(t, unix.NFT_MSG_NEWSETELEM, func(e *netlink.AttributeEncoder) error {
		e.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(e *netlink.AttributeEncoder) error {
			e.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error { return element(e, []byte{192, 0, 2, 1}, left) })
			e.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error { return element(e, []byte{192, 0, 2, 2}, 0) })
			return nil
		})
		return nil
	})
	m.Header.Length = uint32(16 + len(m.Data))
	datagram, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var windows []Window
	spoiled := 0
	done, err := eachElement(datagram, func(e *setElement) {
		w, spoils := ipv4.window(e, map[uint32]standingDoor{ruleset.DoorNumber("ssh"): {"ssh", map[string]int{ipv4.suffix: 32}}})
		if spoils {
			spoiled++
			return
		}
		windows = append(windows, w)
	})
	if err != nil || done {
		t.Fatalf("at the end: %t, error %v", done, err)
	}
	if len(windows) != 1 || windows[0].Door != "ssh" || windows[0].Source.String() != "192.0.2.1" || windows[0].Left != left {
		t.Errorf("the windows are %v, want one of 192.0.2.1 for %s", windows, left)
	}
	if spoiled != 1 {
		t.Errorf("%d elements spoil the set, want 1", spoiled)
	}
	for n := range datagram { // one that is cut short
		if done, err := eachElement(datagram[:n], func(*setElement) {}); done || err == nil && n >= 16 {
			t.Errorf("%d bytes: at the end: %t, error %v", n, done, err)
		}
	}
}

// counters answers requests for the generation and for the counters of a table. The
// generations are given in order, and the last one stays. The counter is in the list from
// the second request for it on.
func counters(t *testing.T, generations ...uint32) (k *Kernel, requested *int) {
	t.Helper()
	requested = new(int)
	k = answering(t, func(requests []netlink.Message) ([]netlink.Message, error) {
		switch {
		case isRequest(requests[0], unix.NFT_MSG_GETGEN):
			generation := generations[0]
			generations = generations[min(1, len(generations)-1):]
			return []netlink.Message{of(t, unix.NFT_MSG_NEWGEN, func(e *netlink.AttributeEncoder) error {
				e.Uint32(unix.NFTA_GEN_ID, generation)
				return nil
			})}, nil
		case isRequest(requests[0], unix.NFT_MSG_GETOBJ):
			if *requested++; *requested == 1 {
				return nil, nil
			}
			return []netlink.Message{of(t, unix.NFT_MSG_NEWOBJ, func(e *netlink.AttributeEncoder) error {
				e.String(unix.NFTA_OBJ_TABLE, "knockwall")
				e.String(unix.NFTA_OBJ_NAME, admittedCounter("ssh"))
				e.Uint32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
				e.Nested(unix.NFTA_OBJ_DATA, func(e *netlink.AttributeEncoder) error {
					e.Uint64(unix.NFTA_COUNTER_BYTES, 0)
					e.Uint64(unix.NFTA_COUNTER_PACKETS, 7)
					return nil
				})
				return nil
			})}, nil
		}
		return nltest.Error(int(unix.EPERM), requests)
	})
	return k, requested
}

// A list that the kernel made while tables changed may lack some items. It is read again.
func TestAReadThatAChangeInterruptsIsMadeAgain(t *testing.T) {
	k, requested := counters(t, 1, 2)
	counts, err := k.Counts("knockwall")
	if err != nil || counts["ssh"].Admitted != 7 || *requested != 2 {
		t.Errorf("after %d requests the counts are %v: %v", *requested, counts, err)
	}
	k, requested = counters(t, 1)
	if counts, err := k.Counts("knockwall"); err != nil || len(counts) != 0 || *requested != 1 {
		t.Errorf("though nothing has changed, after %d requests the counts are %v: %v", *requested, counts, err)
	}
}

// The error of a read keeps its cause, by which callers know that they may not read.
func TestAReadThatIsForbiddenSaysSo(t *testing.T) {
	k := answering(t, func(requests []netlink.Message) ([]netlink.Message, error) {
		return nltest.Error(int(unix.EPERM), requests)
	})
	if _, err := k.Counts("knockwall"); !errors.Is(err, unix.EPERM) {
		t.Errorf("the error is %v", err)
	}
}
