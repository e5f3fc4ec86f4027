package ruleset

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

// maxInterface is how long the name of an interface may be: IFNAMSIZ of linux/if.h,
// without the byte that ends it.
const maxInterface = 15

// FitsInterface reports whether the name of an interface is the one that a rule file
// has, or one of those that begin so, if that is a pattern such as "ppp*".
func FitsInterface(pattern, name string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, begin)
	}
	return pattern == name
}

// interfacesMeet reports whether some interface may fit both of two patterns.
func interfacesMeet(a, b string) bool {
	return FitsInterface(a, strings.TrimSuffix(b, "*")) || FitsInterface(b, strings.TrimSuffix(a, "*"))
}

// errLoopback is why no door stands before loopback.
var errLoopback = errors.New("what this host sends to itself always passes")

// CheckInterface says how to write what cannot be the name of an interface, or a
// pattern of such, in a rule file.
func CheckInterface(s string) error {
	const wildcards = "*?[]{}"
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || unicode.IsSpace(r) })
	begin := strings.TrimSuffix(s, "*")
	_, noAddress := netip.ParseAddr(s)
	_, noPrefix := netip.ParsePrefix(s)
	_, noHardware := net.ParseMAC(s)
	switch everywhere := strings.Trim(strings.ToLower(s), "+"+wildcards); {
	case len(words) == 0:
		return errors.New("a name is wanted, as `ip link` shows it")
	case everywhere == "", everywhere == "any", everywhere == "all", strings.HasPrefix(s, "%d"):
		return errors.New("leave interfaces out to guard all but lo")
	case noAddress == nil, noPrefix == nil:
		return errors.New("this is an address: those that a door guards stand in its to")
	case noHardware == nil:
		return errors.New("this is a hardware address: write the name that `ip link` shows")
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("no name has such characters: write it as `ip link` shows it")
	case len(words) > 1:
		return fmt.Errorf("each name stands in quotes of its own: %s", inQuotes(words))
	case words[0] != s:
		return fmt.Errorf("write %q", words[0])
	case s[0] == '!':
		return errors.New("name those where the door is to stand: there is no way to say all but some")
	case strings.HasSuffix(s, "+"): // of iptables
		return fmt.Errorf("all whose names begin so are %q", strings.TrimRight(s, "+")+"*")
	case strings.Contains(s, "%d"): // of the kernel, which puts a number there
		begin, _, _ := strings.Cut(s, "%d")
		return fmt.Errorf("all that are numbered so are %q", begin+"*")
	case strings.IndexAny(begin, wildcards) > 0:
		return fmt.Errorf("a pattern is how names begin, and then *: %q", begin[:strings.IndexAny(begin, wildcards)]+"*")
	case strings.ContainsAny(begin, wildcards):
		return errors.New("a pattern is how names begin, and then *")
	case strings.Contains(s, ":"):
		name, _, _ := strings.Cut(s, ":")
		return fmt.Errorf("this is a label of addresses: write the interface's name, %q, and the addresses in the door's to", name)
	case s == ".", s == "..", strings.ContainsAny(s, "/%\"\\"):
		return errors.New("no interface has such a name: write it as `ip link` shows it")
	case len(s) > maxInterface:
		return fmt.Errorf("a name has %d characters at most: write the one that `ip link` shows first, and no altname", maxInterface)
	case s == "lo", s == "lo*":
		return errLoopback
	}
	return nil
}

// inQuotes writes a list as rule files have it.
func inQuotes(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, fmt.Sprintf("%q", w))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// interfaces reads names and patterns of interfaces, and leaves out those that fit
// another: a packet would come to the door twice.
func (l *Loaded) interfaces(e hcl.Expression) []string {
	var names []string
	n, ok := l.list(e, func(e hcl.Expression, s string) {
		switch err := CheckInterface(s); {
		case err == errLoopback:
			l.failAt(e, "Loopback is never guarded", sentence(err))
		case err != nil:
			l.failAt(e, "Not an interface name", sentence(err))
		default:
			names = append(names, s)
		}
	})
	if ok && n == 0 {
		l.failAt(e, "No interfaces", "Nothing would be guarded. Leave interfaces out to guard all but lo.")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(names, func(other string) bool {
			return other != name && FitsInterface(other, strings.TrimSuffix(name, "*")) && strings.HasSuffix(other, "*")
		})
	})
}
