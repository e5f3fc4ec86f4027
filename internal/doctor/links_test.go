package doctor

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// interrupted returns a dump that is interrupted a number of times, with part of the list
// each time.
func interrupted[T any](times int, err error, whole ...T) func() ([]T, error) {
	return func() ([]T, error) {
		if times == 0 {
			return whole, nil
		}
		times--
		return whole[:1], err
	}
}

func TestInterruptedDumpIsMadeAgain(t *testing.T) {
	other := errors.New("no memory")
	for _, test := range []struct {
		name  string
		times int
		err   error
		want  error
	}{
		{"not interrupted", 0, netlink.ErrDumpInterrupted, nil},
		{"once", 1, netlink.ErrDumpInterrupted, nil},
		{"twice", 2, netlink.ErrDumpInterrupted, nil},
		{"each time", 3, netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted},
		{"another error", 1, other, other},
	} {
		got, err := wholeDump(interrupted(test.times, test.err, 1, 2, 3))
		if !errors.Is(err, test.want) || err == nil && !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("%s: %v, %v, want the error %v", test.name, got, err, test.want)
		}
	}
}

// A BPF program at an interface is found although the first list of interfaces is
// interrupted before it.
func TestBPFAtAnInterfaceAfterAnInterruptedDump(t *testing.T) {
	before := linkList
	t.Cleanup(func() { linkList = before })
	xdp := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "eth1", Xdp: &netlink.LinkXdp{Attached: true, ProgId: 7}}}
	dump := interrupted[netlink.Link](1, netlink.ErrDumpInterrupted, &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}, xdp)
	linkList = func() ([]netlink.Link, error) { return wholeDump(dump) }
	findings, _ := findBPF(&Host{}) // without root it cannot list the other programs
	if len(findings) == 0 || !strings.Contains(findings[0].Problem, "(XDP, id 7) at eth1") {
		t.Errorf("found: %+v", findings)
	}
}
