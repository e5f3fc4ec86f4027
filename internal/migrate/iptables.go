package migrate

import (
	"slices"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

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

// number takes the next word if it is a number.
func (a *arguments) number() {
	if len(a.words) > 0 {
		if _, err := strconv.ParseUint(a.words[0], 10, 32); err == nil {
			a.words = a.words[1:]
		}
	}
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

// elsewhere are chains with packets that are not for this host.
var elsewhere = []string{"FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING", "DOCKER-USER"}

// noProtocol is for a rule that names a port and no protocol.
const noProtocol = "The command names a port and no protocol, which iptables refuses. TCP is assumed."

// iptables reads the arguments of iptables and ip6tables. It understands inserting or
// deleting a rule that accepts the source at some ports. It does not understand other
// matches or negation.
func iptables(words []string) (change, bool) {
	var c change
	var list, chain, target string
	var protocol []packet.Protocol
	source := false
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 {
		switch a.option() {
		case "-I", "--insert", "-A", "--append":
			c.kind, chain = opens, a.next()
			a.number()
		case "-D", "--delete":
			c.kind, chain = closes, a.next()
			before := len(a.words)
			if a.number(); len(a.words) < before { // deletes by rule number
				return change{kind: closes}, len(a.words) == 0
			}
		case "-t", "--table":
			if a.next() != "filter" {
				return c, false
			}
		case "-p", "--protocol", "--proto":
			var ok bool
			if protocol, ok = protocols(a.next()); !ok {
				return c, false
			}
		case "-s", "--source", "--src":
			if source = isSource(a.next()); !source {
				return c, false
			}
		case "--dport", "--destination-port", "--dports", "--destination-ports":
			if list != "" {
				return c, false
			}
			list = a.next()
		case "-i", "--in-interface":
			if c.device = a.next(); strings.Contains(c.device, "*") {
				return c, false
			}
			if begin, ok := strings.CutSuffix(c.device, "+"); ok { // all names that begin so
				c.device = begin + "*"
			}
		case "-j", "--jump":
			target = a.next()
		case "-m", "--match":
			if !slices.Contains([]string{"tcp", "udp", "multiport", "state", "conntrack", "comment"}, a.next()) {
				return c, false
			}
		case "--state", "--ctstate":
			if !slices.Contains(strings.Split(a.next(), ","), "NEW") {
				return c, false
			}
		case "--comment":
			a.next()
		case "-w", "--wait":
			a.number()
		case "--syn", "-4", "-6", "--ipv4", "--ipv6":
		default:
			return c, false
		}
	}
	if a.short || c.kind == nothing || !source || list == "" || target != "ACCEPT" || slices.Contains(elsewhere, chain) {
		return c, false
	}
	if protocol == nil {
		protocol, c.note = onlyTCP, noProtocol
	}
	var ok bool
	c.ports, ok = portList(list, ":", protocol)
	return c, ok
}

// knockHelper reads the arguments of knockd's helper script, which calls iptables.
func knockHelper(words []string) (change, bool) {
	var c change
	var list string
	protocol, source, ok := onlyTCP, false, true
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 && ok {
		switch a.option() {
		case "-a", "--append", "-i", "--insert":
			c.kind = opens
		case "-x", "--delete":
			c.kind = closes
		case "-f", "--srcaddr":
			source = isSource(a.next())
		case "-d", "--dstport":
			list = a.next()
		case "-p", "--proto":
			protocol, ok = protocols(a.next())
		case "-c", "--chain":
			ok = !slices.Contains(elsewhere, a.next())
		case "-v", "--verbose":
		default:
			ok = false
		}
	}
	if !ok || a.short || !source || c.kind == nothing {
		return c, false
	}
	c.ports, ok = portList(list, ":", protocol)
	return c, ok
}
