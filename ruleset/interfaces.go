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

// maxInterface is the maximum length of an interface name: IFNAMSIZ of linux/if.h without
// the final NUL byte.
const maxInterface = 15

// FitsInterface reports whether the name of an interface matches the pattern of a rule
// file. A pattern such as "ppp*" matches all names that begin with "ppp". Any other
// matches only itself.
func FitsInterface(pattern, name string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, begin)
	}
	return pattern == name
}

// interfacesMeet reports whether an interface may match both patterns.
func interfacesMeet(a, b string) bool {
	return FitsInterface(a, strings.TrimSuffix(b, "*")) || FitsInterface(b, strings.TrimSuffix(a, "*"))
}

// errLoopback says why no door guards loopback.
var errLoopback = errors.New("packets that this host sends to itself always pass")

// CheckInterface returns an error if s is not the name of an interface or a pattern of
// names. The error says what to write instead.
func CheckInterface(s string) error {
	const wildcards = "*?[]{}"
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || unicode.IsSpace(r) })
	begin := strings.TrimSuffix(s, "*")
	_, noAddress := netip.ParseAddr(s)
	_, noPrefix := netip.ParsePrefix(s)
	_, noHardware := net.ParseMAC(s)
	switch everywhere := strings.Trim(strings.ToLower(s), "+"+wildcards); {
	case len(words) == 0:
		return errors.New("write a name that `ip link` shows")
	case everywhere == "", everywhere == "any", everywhere == "all", strings.HasPrefix(s, "%d"):
		return errors.New("leave interfaces out to guard all interfaces but lo")
	case noAddress == nil, noPrefix == nil:
		return errors.New("this is an address: write the addresses that a door guards in its \"to\"")
	case noHardware == nil:
		return errors.New("this is a hardware address: write the name that `ip link` shows")
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("a name cannot have such characters: write it as `ip link` shows it")
	case len(words) > 1:
		return fmt.Errorf("write each name in its own quotes: %s", inQuotes(words))
	case words[0] != s:
		return fmt.Errorf("write %q", words[0])
	case s[0] == '!':
		return errors.New("list the interfaces that the door guards: a name cannot be excluded")
	case strings.HasSuffix(s, "+"): // as in iptables
		return fmt.Errorf("write %q for all names that begin so", strings.TrimRight(s, "+")+"*")
	case strings.Contains(s, "%d"): // the kernel replaces it by a number
		begin, _, _ := strings.Cut(s, "%d")
		return fmt.Errorf("write %q for all numbered names", begin+"*")
	case strings.IndexAny(begin, wildcards) > 0:
		return fmt.Errorf("a pattern is the beginning of names and one * at the end: %q", begin[:strings.IndexAny(begin, wildcards)]+"*")
	case strings.ContainsAny(begin, wildcards):
		return errors.New("a pattern is the beginning of names and one * at the end")
	case strings.Contains(s, ":"):
		name, _, _ := strings.Cut(s, ":")
		return fmt.Errorf("this is a label of addresses: write the interface's name, %q, and the addresses in the door's \"to\"", name)
	case s == ".", s == "..", strings.ContainsAny(s, "/%\"\\"):
		return errors.New("an interface cannot have such a name: write it as `ip link` shows it")
	case len(s) > maxInterface:
		return fmt.Errorf("a name has at most %d characters: write the name that `ip link` shows first, not an altname", maxInterface)
	case s == "lo", s == "lo*":
		return errLoopback
	}
	return nil
}

// inQuotes formats a list for a rule file.
func inQuotes(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, fmt.Sprintf("%q", w))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// interfaces reads names and patterns of interfaces. It leaves out those that another
// pattern covers, as a packet would meet the door twice.
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
