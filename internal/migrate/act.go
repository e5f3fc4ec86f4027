package migrate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// act is one change that a command makes to a firewall: it adds or removes a rule or an
// element of a set, or removes all of them.
type act struct {
	tool    string // its program, for messages
	verb    verb
	verdict verdict   // of the rule
	path    direction // of the packets that the rule sees

	ports     []packet.PortRange // destination ports
	every     bool               // every port
	elsewhere string             // or what leads to the ports, which other rules name: the set "friends"
	everybody bool               // the rule accepts any source
	to        string             // destination address or prefix; "": any
	device    string             // interface that packets come in by
	ipv4      bool               // the rule is for one IP version only
	ipv6      bool
	lasts     time.Duration // after this time the firewall removes it by itself; 0: never

	jump   string // the chain that the rule sends packets to
	chain  string // the chain, or table and chain
	number string // identifies the rule where commands remove rules by number
	nat    string // the command that translates for all sources, if the rule translates

	notes []string // what is different in a door
	doubt string   // why a door cannot do the same; "": it can
}

type verb int

const (
	adds verb = iota
	removes
	flushes // removes all rules of a chain, or all elements of a set
)

type verdict int

const (
	unknown    verdict = iota // as of a rule that is removed by number
	accepts                   //
	refuses                   //
	translates                // accepts, and changes the destination
	observes                  // as LOG
)

type direction int

const (
	inward    direction = iota // to this host
	forwarded                  // through this host
	outward                    // from this host
)

// opens reports whether the act lets packets in.
func (a *act) opens() bool {
	return a.path != outward && (a.verb == adds && (a.verdict == accepts || a.verdict == translates) ||
		a.verb == removes && a.verdict == refuses)
}

// closes reports whether the act may take back another act that opens.
func (a *act) closes() bool {
	return a.path != outward && (a.verb == flushes || a.verb == removes && a.verdict != refuses && a.verdict != observes ||
		a.verb == adds && a.verdict == refuses)
}

// isAnonymous reports whether the act closes something and does not say what.
func (a *act) isAnonymous() bool {
	return a.verb == removes && a.verdict == unknown && a.number == "" && a.elsewhere == ""
}

// takesBack reports whether the closing act takes back the opening one, or a part of it.
func (a *act) takesBack(opening *act) bool {
	switch {
	case a.jump != "" && a.jump == opening.chain:
		return true
	case a.verb == flushes && a.elsewhere == "":
		return a.chain == "" && family(a.tool) == family(opening.tool) || a.chain != "" && a.chain == opening.chain
	case a.elsewhere != "" || opening.elsewhere != "":
		return a.elsewhere == opening.elsewhere && (len(a.ports) == 0 || slices.Equal(a.ports, opening.ports))
	case a.number != "" && a.verb == removes:
		return a.number == opening.number || opening.number == "" && a.tool == opening.tool
	case a.to != opening.to:
		return false
	case a.every && len(a.ports) == 0 || opening.every && len(opening.ports) == 0:
		return a.every && opening.every
	}
	return slices.ContainsFunc(a.ports, func(r packet.PortRange) bool { return slices.ContainsFunc(opening.ports, r.Overlaps) })
}

// family returns one name for all programs that change the same rules.
func family(tool string) string {
	if strings.HasPrefix(tool, "ip6tables") || strings.HasPrefix(tool, "iptables") || strings.HasPrefix(tool, "knock_") {
		return "iptables"
	}
	return tool
}

// question adds a reason why a door cannot do the same. The first one counts.
func (a *act) question(format string, args ...any) {
	if a.doubt == "" {
		a.doubt = fmt.Sprintf(format, args...)
	}
}

// from reads who the rule is for. It questions any address but the source's.
func (a *act) from(address string) {
	switch {
	case isSource(address):
		a.everybody = false
	case isAnywhere(address):
	case strings.HasPrefix(address, placeholder+"/"):
		a.everybody = false
		a.question("it lets in the whole prefix %s, which a door does by: source_prefix = { ipv4 = %s }", address, address[len(placeholder)+1:])
	default:
		a.question("it names the source %s and not the one that knocked", address)
	}
}

// toward reads the destination of the rule.
func (a *act) toward(address string) {
	switch prefix, err := netip.ParsePrefix(address); {
	case isAnywhere(address):
	case err == nil && prefix.IsSingleIP():
		a.to = prefix.Addr().Unmap().String()
	case err == nil && prefix.Bits() > 0 && !prefix.Addr().Is4In6():
		a.to = prefix.Masked().String()
	default:
		addr, err := netip.ParseAddr(address)
		if err != nil || addr.Zone() != "" {
			a.question("it names the destination %s, and a door needs its address: to = [\"192.0.2.1\"]", address)
			return
		}
		a.to = addr.Unmap().String()
	}
}

// on reads the interface that packets come in by. A plus at the end stands for any text.
func (a *act) on(device string) {
	if begin, ok := strings.CutSuffix(device, "+"); ok && begin != "" {
		device = begin + "*"
	} else if strings.Contains(device, "*") {
		a.question("a rule file cannot name the interface %s", device)
	}
	if !isInterface(device) {
		a.question("a rule file cannot name the interface %s", device)
		return
	}
	a.device = device
}

// isSource reports whether an argument is exactly the source's address.
func isSource(s string) bool {
	return s == placeholder || s == placeholder+"/32" || s == placeholder+"/128" || s == placeholder+"/255.255.255.255"
}

func isAnywhere(s string) bool {
	return slices.Contains([]string{"any", "anywhere", "0/0", "0.0.0.0/0", "0.0.0.0/0.0.0.0", "::/0", "0.0.0.0"}, s)
}

// arguments are the remaining arguments of a command.
type arguments struct {
	words []string
	short bool // next was called, and no argument was left
}

func (a *arguments) next() string {
	if len(a.words) == 0 {
		a.short = true
		return ""
	}
	word := a.words[0]
	a.words = a.words[1:]
	return word
}

// peek returns the next word, or "" if there is none.
func (a *arguments) peek() string {
	if len(a.words) == 0 {
		return ""
	}
	return a.words[0]
}

// accept takes the next word if it is one of these.
func (a *arguments) accept(words ...string) bool {
	if len(a.words) == 0 || !slices.Contains(words, a.words[0]) {
		return false
	}
	a.words = a.words[1:]
	return true
}

// number takes the next word if it is a number, and returns it.
func (a *arguments) number() string {
	if word := a.peek(); word != "" && strings.Trim(word, "0123456789") == "" {
		return a.next()
	}
	return ""
}

// option takes the next word. If it is --name=value, the value becomes the next word.
func (a *arguments) option() string {
	word := a.next()
	if name, value, ok := strings.Cut(word, "="); ok && strings.HasPrefix(word, "--") {
		a.words = append([]string{value}, a.words...)
		return name
	}
	return word
}
