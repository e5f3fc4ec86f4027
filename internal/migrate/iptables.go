package migrate

import (
	"slices"
	"strings"
)

// iptablesRule is a rule of iptables while its arguments are read.
type iptablesRule struct {
	act
	command   byte // of I A D C R F P N and so on
	table     string
	target    string
	protocol  string
	ports     string // destination ports
	asked     string // destination ports from before NAT
	toHere    bool   // -d names the source that knocked: an answer
	states    string // of conntrack that the rule is for
	arguments []string
}

// iptables reads the arguments of iptables and ip6tables.
func iptables(tool string, words []string) []act {
	r := &iptablesRule{act: act{tool: tool, everybody: true}, table: "filter", arguments: words}
	r.ipv4, r.ipv6 = strings.HasPrefix(tool, "iptables"), strings.HasPrefix(tool, "ip6tables")
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 {
		r.option(a)
	}
	if a.short {
		r.question("its last option has no value")
	}
	return r.acts()
}

// harmless are matches that do not change for whom a port opens.
var harmless = []string{"tcp", "udp", "multiport", "state", "conntrack", "comment", "addrtype", "set"}

// limits are matches that limit how often a rule matches.
var limits = []string{"limit", "hashlimit", "connlimit"}

// valued are the options of harmless matches and of targets that have one value which does
// not matter here.
var valued = []string{"--comment", "-W", "--wait-interval", "--reject-with", "--log-prefix", "--log-level", "--nflog-group", "--nflog-prefix",
	"--limit", "--limit-burst", "--connlimit-upto", "--connlimit-mask", "--hashlimit-upto", "--hashlimit", "--hashlimit-burst",
	"--hashlimit-mode", "--hashlimit-name", "--hashlimit-htable-expire", "--hashlimit-above", "--hashlimit-srcmask", "--dst-type", "--ctproto", "--modprobe"}

// option reads the next option with its values.
func (r *iptablesRule) option(a *arguments) {
	switch option := a.iptablesOption(); option {
	case "-I", "--insert", "-A", "--append":
		r.command, r.chain = 'I', a.next()
		a.number()
	case "-D", "--delete":
		r.command, r.chain = 'D', a.next()
		if number := a.number(); number != "" {
			r.number = "rule " + number
		}
	case "-R", "--replace":
		r.command, r.chain = 'I', a.next()
		r.question("it replaces rule %s of the chain %s, and what that was is not known here", a.number(), r.chain)
	case "-C", "--check":
		r.command = 'C'
		a.next()
	case "-F", "--flush", "-X", "--delete-chain":
		r.command = 'F'
		if next := a.peek(); next != "" && next[0] != '-' {
			r.chain = a.next()
		}
	case "-P", "--policy":
		r.command, r.chain, r.target = 'P', a.next(), a.next()
	case "-N", "-Z", "-L", "-S", "-E", "--new-chain", "--zero", "--list", "--list-rules", "--rename-chain", "-n", "-v", "--numeric", "--verbose",
		"--line-numbers":
		if r.command == 0 && !strings.Contains("-n -v --numeric --verbose --line-numbers", option) {
			r.command = 'L'
			for a.peek() != "" && a.peek()[0] != '-' {
				a.next()
			}
		}
	case "-t", "--table":
		r.table = a.next()
	case "-p", "--protocol", "--proto":
		r.protocol = strings.ToLower(a.next())
	case "-s", "--source", "--src":
		r.from(a.next())
	case "-d", "--destination", "--dst":
		if address := a.next(); isSource(address) {
			r.toHere = true
		} else {
			r.toward(address)
		}
	case "--dport", "--destination-port", "--dports", "--destination-ports":
		r.ports = joined(r.ports, a.next())
	case "--ports":
		r.ports = joined(r.ports, a.next())
		r.notes = append(r.notes, "The command named these ports on either side (--ports). Here they are the ports that clients connect to.")
	case "--ctdir":
		if direction := a.next(); !strings.EqualFold(direction, "ORIGINAL") {
			r.question("it is for packets in the direction %s, and a door is for new connections", direction)
		}
	case "--ctorigdstport":
		r.asked = a.next()
	case "--sport", "--source-port", "--sports", "--source-ports":
		if list := a.next(); !slices.Contains([]string{"1024:65535", "1024:", "1:65535", "0:65535"}, list) && !isOutward(r.chain) {
			r.question("it names the source port %s, and a door knows only addresses", list)
		}
	case "-i", "--in-interface":
		r.on(a.next())
	case "-o", "--out-interface":
		a.next() // of a forwarding rule: the destination decides
	case "-j", "--jump", "-g", "--goto":
		r.target = a.next()
	case "-m", "--match":
		if match := a.next(); slices.Contains(limits, match) {
			r.notes = append(r.notes, "The limit of the match "+match+" is left out. Your firewall's own rule for the ports can have it.")
		} else if !slices.Contains(harmless, match) {
			r.question("it has the match %s, which a door has not", match)
		}
	case "--state", "--ctstate":
		r.states = a.next()
	case "--match-set":
		r.question("it depends on the set %s, whose addresses are elsewhere", a.next())
		a.next()
	case "--to-destination", "--to-ports", "--to-port", "--to-dest", "--to":
		a.next() // told by the arguments
	case "--tcp-flags":
		a.next()
		a.next()
	case "-w", "--wait":
		a.number()
	case "-c", "--set-counters":
		a.next()
		a.next()
	case "--syn", "-4", "-6", "--ipv4", "--ipv6", "-f", "--connlimit-saddr", "--random", "--persistent":
	case "!":
		if len(a.words) > 1 && slices.Contains([]string{"-i", "--in-interface"}, a.words[0]) && a.words[1] == "lo" {
			a.words = a.words[2:] // no door guards loopback
			return
		}
		r.question("it has a negation (!), which a door has not")
	default:
		if slices.Contains(valued, option) {
			a.next()
			return
		}
		r.question("it has the option %s, which a door has not", option)
		for a.peek() != "" && a.peek()[0] != '-' && a.peek() != "!" {
			a.next()
		}
	}
}

// attached are the short options of iptables with a value, which may follow without a space,
// and alone are those without.
const (
	attached = "IADCRFNXPELSZtpsdiojgmwc"
	alone    = "nvfx46h"
)

// long are the long options of iptables and of its matches that people shorten.
var long = []string{"--insert", "--append", "--delete", "--check", "--replace", "--flush", "--policy", "--table", "--protocol", "--source",
	"--destination", "--destination-port", "--destination-ports", "--dport", "--dports", "--source-port", "--source-ports", "--sport", "--sports",
	"--in-interface", "--out-interface", "--jump", "--goto", "--match", "--state", "--ctstate", "--comment", "--wait", "--wait-interval", "--syn",
	"--to-destination", "--to-ports", "--reject-with", "--log-prefix", "--log-level", "--numeric", "--verbose", "--line-numbers", "--list", "--list-rules"}

// iptablesOption takes the next option as getopt_long(3) reads it: -s10.0.0.1 has its value
// attached, and the begin of a long option is enough if no other begins so.
func (a *arguments) iptablesOption() string {
	option := a.option()
	switch {
	case strings.HasPrefix(option, "--"):
		return unabbreviated(option)
	case len(option) < 3 || option[0] != '-':
		return option
	case strings.IndexByte(attached, option[1]) >= 0:
		a.words = append([]string{option[2:]}, a.words...)
	case strings.IndexByte(alone, option[1]) >= 0:
		a.words = append([]string{"-" + option[2:]}, a.words...)
	default:
		return option
	}
	return option[:2]
}

// unabbreviated returns the long option that a text is the begin of, or the text. A match
// that is not loaded has no options, so --dpor is --dport and not --dports.
func unabbreviated(option string) string {
	found := ""
	for _, name := range long {
		switch {
		case name == option:
			return option
		case !strings.HasPrefix(name, option):
		case found == "" || strings.HasPrefix(found, name):
			found = name
		case !strings.HasPrefix(name, found):
			return option // the begin of several
		}
	}
	if found == "" || slices.Contains(valued, option) {
		return option
	}
	return found
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "," + b
}

func isOutward(chain string) bool {
	chain = strings.ToLower(chain)
	return chain == "postrouting" || strings.Contains(chain, "output")
}

func isForwarding(chain string) bool {
	return chain == "DOCKER-USER" || strings.Contains(strings.ToLower(chain), "forward") || strings.HasPrefix(strings.ToLower(chain), "fwd")
}

// builtin are the chains that the kernel calls.
var builtin = []string{"INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"}

// refusals matches names of chains and targets that refuse.
var refusals = []string{"drop", "deny", "reject", "block", "ban", "tarpit", "blacklist", "refuse"}

// noProtocol is for a rule that names a port and no protocol.
const noProtocol = "The command names a port and no protocol, which iptables refuses. TCP is assumed."

// acts returns what the rule does.
func (r *iptablesRule) acts() []act {
	switch r.command {
	case 0, 'C', 'L':
		return nil
	case 'F':
		r.verb = flushes
		return []act{r.act}
	case 'D':
		r.verb = removes
		if r.number != "" {
			r.act.number = ""
			return []act{r.act}
		}
	case 'P':
		r.notes = append(r.notes, "The command changed the policy of the chain "+r.chain+", for every port that no rule names.")
	}
	r.verdictOf(r.target)
	r.pathOf()
	r.readPorts()
	r.checkStates()
	if r.table != "filter" && r.verdict != translates {
		r.question("it changes the table %s", r.table)
	}
	return []act{r.act}
}

// checkStates questions a rule that is not for new connections.
func (r *iptablesRule) checkStates() {
	if r.states != "" && !slices.ContainsFunc(strings.Split(strings.ToUpper(r.states), ","), func(s string) bool { return s == "NEW" || s == "DNAT" }) {
		r.question("it is for connections that are %s, and a door is for new ones", r.states)
	}
}

// verdictOf reads the target of the rule.
func (r *iptablesRule) verdictOf(target string) {
	switch target {
	case "ACCEPT":
		r.verdict = accepts
	case "RETURN":
		r.verdict = accepts
		if slices.Contains(builtin, r.chain) {
			r.question("RETURN in the chain %s leaves the decision to its policy", r.chain)
		}
	case "DROP", "REJECT", "TARPIT", "STEAL":
		r.verdict = refuses
	case "LOG", "NFLOG", "ULOG", "":
		r.verdict = observes
	case "DNAT", "REDIRECT", "NETMAP":
		r.verdict = translates
		r.nat = r.forAll()
	case "MARK", "CONNMARK", "SET", "NFQUEUE", "TPROXY", "CT", "NOTRACK", "MASQUERADE", "SNAT":
		r.verdict = accepts
		if target == "MASQUERADE" || target == "SNAT" {
			r.path = outward
			return
		}
		r.question("its target is %s: other rules decide what becomes of the packets", target)
	default:
		name := strings.ToLower(target)
		if slices.ContainsFunc(refusals, func(s string) bool { return strings.Contains(name, s) }) {
			r.verdict = refuses
			return
		}
		r.verdict, r.jump = accepts, target
		r.notes = append(r.notes, "The command sends the source's packets to your chain "+target+". It is assumed that this chain accepts them.")
	}
}

// pathOf reads which packets the rule's chain sees.
func (r *iptablesRule) pathOf() {
	switch {
	case r.path == outward:
	case isOutward(r.chain) || r.toHere:
		r.path = outward
	case isForwarding(r.chain):
		r.path = forwarded
		switch {
		case r.asked != "":
			r.path = inward // the port that this host publishes
		case r.chain == "DOCKER-USER":
			r.question("the chain DOCKER-USER sees the port inside the container, and a door guards the port that Docker publishes")
		case r.to == "":
			r.question("it lets packets through to other hosts and does not say which, and a door needs their addresses: to = [\"192.0.2.1\"]")
		}
	}
}

// readPorts reads the destination ports.
func (r *iptablesRule) readPorts() {
	list := r.ports
	if r.asked != "" {
		list = r.asked
	}
	protocol, ok := protocols(r.protocol)
	switch {
	case r.protocol == "" || r.protocol == "all" || r.protocol == "0":
		protocol = both
		if list != "" {
			protocol = onlyTCP
			r.notes = append(r.notes, noProtocol)
		}
	case !ok:
		r.question("the protocol %s has no ports", r.protocol)
		return
	}
	switch {
	case list != "":
		if r.act.ports, ok = portList(list, ":-", protocol); !ok {
			r.question("%s are not ports that a rule file can name", list)
		}
	case slices.Contains(builtin, r.chain):
		r.act.ports, r.every = everyPort(protocol), true
	default:
		r.elsewhere = "the chain " + r.chain
	}
}

// forAll returns the command for a rule of NAT that applies to every source, as a shell
// reads it.
func (r *iptablesRule) forAll() string {
	words := []string{r.tool, "-t", r.table}
	a := &arguments{words: slices.Clone(r.arguments)}
	for len(a.words) > 0 {
		switch word := a.iptablesOption(); word {
		case "-t", "--table", "-s", "--source", "--src":
			a.next()
		case "-I", "--insert", "-A", "--append", "-D", "--delete":
			words = append(words, "-A", a.next())
			a.number()
		default:
			words = append(words, shellQuoted(word))
		}
	}
	return strings.Join(words, " ")
}

// savesRules reads the arguments of a program that writes the rules to a file, or reads them
// from one.
func savesRules(tool string, words []string) []act {
	c := act{tool: tool, verdict: observes}
	if tool == "netfilter-persistent" && !slices.Contains(words, "save") {
		c.verdict = accepts
		c.question("its rules are in a file that is not read here")
		return []act{c}
	}
	c.notes = []string{"The command also saved the rules of the firewall, which is left out: a window is none of them."}
	return []act{c}
}

// knockHelper reads the arguments of knockd's helper script, which calls iptables.
func knockHelper(tool string, words []string) []act {
	c := act{tool: tool, everybody: true, verdict: accepts, ipv4: true, chain: "INPUT"}
	list, protocol := "", onlyTCP
	given := false
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 {
		switch option := a.option(); option {
		case "-a", "--append", "-i", "--insert":
			c.verb, given = adds, true
		case "-x", "--delete":
			c.verb, given = removes, true
		case "-f", "--srcaddr":
			c.from(a.next())
		case "-d", "--dstport":
			list = a.next()
		case "-p", "--proto":
			name := a.next()
			var ok bool
			if protocol, ok = protocols(name); !ok {
				c.question("the protocol %s has no ports", name)
			}
		case "-c", "--chain":
			if c.chain = a.next(); isForwarding(c.chain) {
				c.path = forwarded
				c.question("it lets packets through to other hosts and does not say which, and a door needs their addresses: to = [\"192.0.2.1\"]")
			}
		case "-v", "--verbose", "-t", "--test":
			if option[len(option)-1] == 't' {
				return nil
			}
		default:
			c.question("it has the option %s", option)
		}
	}
	if !given {
		return nil
	}
	var ok bool
	if c.ports, ok = portList(list, ":-", protocol); !ok {
		c.question("%s are not ports that a rule file can name", list)
	}
	return []act{c}
}
