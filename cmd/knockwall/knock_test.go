package main

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Knocks go to all addresses of the version of IP that comes first, and to the other only if
// none can be sent to the first.
func TestKnocksGoToOneVersionOfIP(t *testing.T) {
	const all = "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2"
	for _, c := range []struct{ addrs, unreachable, want string }{
		{all, "", "2001:db8::1 2001:db8::2"},
		{all, "2001:db8::1", "2001:db8::1 2001:db8::2"},
		{all, "2001:db8::1 2001:db8::2", "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2"},
		{all, all, "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2"},
		{"192.0.2.1 2001:db8::1", "", "192.0.2.1"},
		{"192.0.2.1", "192.0.2.1", "192.0.2.1"},
	} {
		var addrs []netip.Addr
		for _, a := range strings.Fields(c.addrs) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		var knocked []string
		err := knockVersion(addrs, func(a netip.Addr) error {
			knocked = append(knocked, a.String())
			if slices.Contains(strings.Fields(c.unreachable), a.String()) {
				return errors.New("cannot reach " + a.String())
			}
			return nil
		})
		if got := strings.Join(knocked, " "); got != c.want {
			t.Errorf("%+v: knocked at %s", c, got)
		}
		if nothingSent := len(strings.Fields(c.unreachable)) == len(addrs); (err != nil) != nothingSent {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
