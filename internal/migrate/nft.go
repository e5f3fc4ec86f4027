package migrate

import (
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

var nftFamilies = []string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}

// nft reads the arguments of nft: commands with semicolons between them.
func nft(tool string, words []string) []act {
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		if slices.Contains([]string{"-f", "--file", "-i", "--interactive", "-c", "--check"}, words[0]) {
			return []act{{tool: tool, verdict: accepts, doubt: "its rules are in a file that is not read here"}}
		}
		words = words[1:]
	}
	return nftScript(tool, strings.Join(words, " "))
}

// nftScript reads commands of nft.
func nftScript(tool, text string) []act {
	var acts []act
	// The whole command may be one quoted word, and braces may have no spaces around them.
	text = strings.NewReplacer("{", " { ", "}", " } ", ",", " , ", ";", " ; ", "\n", " ; ").Replace(text)
	for command := range strings.SplitSeq(text, " ; ") {
		if a := (&arguments{words: strings.Fields(command)}); len(a.words) > 0 {
			acts = append(acts, nftCommand(tool, a)...)
		}
	}
	return acts
}

func nftCommand(tool string, a *arguments) []act {
	c := act{tool: tool, everybody: true}
	verb := a.next()
	switch verb {
	case "add", "insert", "create":
	case "delete", "destroy":
		c.verb = removes
	case "flush":
		c.verb = flushes
	case "replace":
		c.question("it replaces a rule, and what that was is not known here")
	case "list", "monitor", "describe", "export":
		return nil
	default:
		c.question("nft has no command %s", verb)
	}
	object := a.next()
	if slices.Contains(nftFamilies, a.peek()) {
		switch a.next() {
		case "ip":
			c.ipv4 = true
		case "ip6":
			c.ipv6 = true
		}
	}
	table := a.next()
	name := a.next()
	c.chain = table + "/" + name
	switch {
	case object == "rule":
		return c.nftRule(a, name)
	case object == "element":
		return c.nftElement(a, name)
	case c.verb == flushes && (object == "ruleset" || object == "table"):
		c.chain = ""
		return []act{c}
	case c.verb == flushes && object == "chain":
		return []act{c}
	case c.verb == flushes && object == "set":
		c.elsewhere = `the set "` + name + `"`
		return []act{c}
	}
	return nil // as a table, a chain or a set, which opens nothing by itself
}

// nftElement reads elements such as { %IP% . 22 timeout 15m }.
func (c act) nftElement(a *arguments, set string) []act {
	c.verdict, c.elsewhere = accepts, `the set "`+set+`"`
	c.ipv4, c.ipv6 = false, false
	if isRefusal(set) {
		c.verdict = refuses
	}
	var acts []act
	if !a.accept("{") {
		c.question("its element has no braces")
		return []act{c}
	}
	for len(a.words) > 0 && !a.accept("}") {
		e := c
		source, protocol := false, both
		for len(a.words) > 0 && a.peek() != "," && a.peek() != "}" {
			switch word := a.next(); word {
			case ".":
			case "timeout":
				var ok bool
				if e.lasts, ok = nftTime(a.next()); !ok {
					e.question("its timeout is not a time")
				}
			case "expires":
				a.next()
			case "comment":
				for len(a.words) > 0 && a.peek() != "," && a.peek() != "}" {
					a.next()
				}
			case ":":
				e.question("the set is a map, whose meaning is in a rule elsewhere")
				a.next()
			default:
				if list, ok := protocols(word); ok {
					protocol = list
				} else if isSource(word) {
					source = true
				} else if ports, ok := portList(word, "-", both); ok {
					e.ports = append(e.ports, ports...)
				} else {
					e.question("its element has the part %s", word)
				}
			}
		}
		e.everybody = !source
		e.ports = slices.DeleteFunc(e.ports, func(r packet.PortRange) bool { return !slices.Contains(protocol, r.Protocol) })
		acts = append(acts, e)
		a.accept(",")
	}
	return acts
}

// isRefusal reports whether the name of a set or chain says that it refuses.
func isRefusal(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(refusals, func(s string) bool { return strings.Contains(name, s) })
}

// nftTime reads a time such as 1h30m, 2d or 90, which is in seconds.
func nftTime(s string) (time.Duration, bool) {
	var total time.Duration
	for s != "" && total < longest {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		if digits == 0 || digits > 9 {
			return 0, false
		}
		n := time.Duration(0)
		for _, c := range s[:digits] {
			n = 10*n + time.Duration(c-'0')
		}
		s = s[digits:]
		unit := time.Second
		switch {
		case strings.HasPrefix(s, "ms"):
			unit, s = time.Millisecond, s[2:]
		case s != "":
			u, ok := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[s[0]]
			if !ok {
				return 0, false
			}
			unit, s = u, s[1:]
		}
		total += min(n, longest/unit) * unit
	}
	total = min(total, longest)
	return total, total > 0
}

// longest is the longest time that is told from a longer one.
const longest = 365 * 24 * time.Hour

// nftRule reads the matches and statements of a rule.
func (c act) nftRule(a *arguments, chain string) []act {
	given := strings.Join(a.words, " ")
	if c.verb == removes && a.accept("handle") {
		return []act{c} // by a handle, which names nothing
	}
	protocol := both
	tcpOrUDP := false
	translation := false
	for len(a.words) > 0 {
		switch word := a.next(); word {
		case "position", "handle", "index":
			a.next()
		case "ip", "ip6":
			c.ipv4, c.ipv6 = word == "ip", word == "ip6"
			switch field := a.next(); field {
			case "saddr":
				values := c.nftSet(a)
				for _, value := range values {
					if strings.HasPrefix(value, "@") {
						c.question("it depends on the set %s, whose addresses are elsewhere", value[1:])
						continue
					}
					c.from(value)
				}
				if len(values) > 1 {
					c.question("it names other sources beside the one that knocked")
				}
			case "daddr":
				values := c.nftSet(a)
				if len(values) == 1 && isSource(values[0]) {
					c.path = outward
				} else if len(values) == 1 {
					c.toward(values[0])
				} else {
					c.question("it names more than one destination, which a door lists in \"to\"")
				}
			case "protocol", "nexthdr":
				protocol, tcpOrUDP = c.nftProtocol(a), true
			default:
				c.question("it looks at %s %s, which a door does not", word, field)
				a.next()
			}
		case "tcp", "udp", "th":
			if list, ok := protocols(word); ok {
				protocol, tcpOrUDP = list, true
			}
			switch field := a.next(); field {
			case "dport":
				if len(c.ports) > 0 {
					c.question("it names destination ports twice")
				}
				list := strings.Join(c.nftSet(a), ",")
				var ok bool
				if c.ports, ok = portList(list, "-", protocol); !ok {
					c.question("%s are not ports that a rule file can name", list)
				}
			case "sport":
				if list := strings.Join(c.nftSet(a), ","); !isOutward(chain) && list != "1024-65535" {
					c.question("it names the source port %s, and a door knows only addresses", list)
				}
			case "flags":
				for len(a.words) > 0 && !a.nftVerdictIsNext() {
					a.next()
				}
			default:
				c.question("it looks at %s %s, which a door does not", word, field)
				a.next()
			}
		case "meta":
			switch field := a.next(); field {
			case "l4proto":
				protocol, tcpOrUDP = c.nftProtocol(a), true
			case "iifname", "iif":
				c.nftDevice(a)
			case "nfproto":
				family := a.next()
				c.ipv4, c.ipv6 = family == "ipv4", family == "ipv6"
			case "oifname", "oif":
				c.nftSet(a)
			default:
				c.question("it looks at meta %s, which a door does not", field)
				a.next()
			}
		case "iif", "iifname":
			c.nftDevice(a)
		case "oif", "oifname":
			c.nftSet(a)
		case "ct":
			field := a.next()
			values := c.nftSet(a)
			if field == "state" && !slices.Contains(values, "new") {
				c.question("it is for connections that are %s, and a door is for new ones", strings.Join(values, ","))
			} else if field != "state" {
				c.question("it looks at ct %s, which a door does not", field)
			}
		case "counter":
			if a.accept("packets") {
				a.next()
			}
			if a.accept("bytes") {
				a.next()
			}
		case "log":
			for len(a.words) > 0 && !a.nftVerdictIsNext() {
				a.next()
			}
		case "limit":
			c.notes = append(c.notes, "The limit of the rule is left out. Your firewall's own rule for the ports can have it.")
			for len(a.words) > 0 && !a.nftVerdictIsNext() {
				a.next()
			}
		case "comment":
			a.words = nil // the comment is the rest, of any number of words
		case "accept":
			c.nftVerdict(accepts)
		case "drop":
			c.nftVerdict(refuses)
		case "reject":
			c.nftVerdict(refuses)
			for a.accept("with", "icmp", "icmpx", "icmpv6", "tcp", "reset", "type", "host-prohibited", "port-unreachable", "admin-prohibited", "host-unreachable") {
			}
		case "return":
			c.nftVerdict(accepts)
		case "jump", "goto":
			target := a.next()
			if isRefusal(target) {
				c.nftVerdict(refuses)
				break
			}
			c.nftVerdict(accepts)
			c.notes = append(c.notes, "The command sends the source's packets to your chain "+target+". It is assumed that this chain accepts them.")
		case "dnat", "redirect":
			c.nftVerdict(translates)
			translation = true
			for len(a.words) > 0 && a.peek() != "comment" {
				a.next()
			}
		case "masquerade", "snat":
			c.path, a.words = outward, nil
		case "notrack", "queue", "mark":
			c.question("it has the statement %s", word)
			a.words = nil
		default:
			c.question("it has %s, which a door has not", word)
		}
	}
	if a.short {
		c.question("the rule is not complete")
	}
	switch {
	case isOutward(chain):
		c.path = outward
	case c.path != outward && isForwarding(chain):
		c.path = forwarded
		if c.to == "" {
			c.question("it lets packets through to other hosts and does not say which, and a door needs their addresses: to = [\"192.0.2.1\"]")
		}
	}
	if c.verdict == unknown {
		c.verdict = observes
	}
	usual := slices.Contains([]string{"input", "forward", "prerouting"}, strings.ToLower(chain))
	switch {
	case len(c.ports) > 0:
	case usual && (c.path == inward || tcpOrUDP):
		c.ports, c.every = everyPort(protocol), true
	default:
		c.elsewhere = "the chain " + chain
	}
	if translation {
		c.nat = c.tool + " 'add rule " + nftFamilyOf(c) + strings.Replace(c.chain, "/", " ", 1) + " " + withoutSource(given) + "'"
	}
	return []act{c}
}

func nftFamilyOf(c act) string {
	if c.ipv6 {
		return "ip6 "
	}
	return "ip "
}

// withoutSource removes the match of the source from the text of a rule of nft.
func withoutSource(rule string) string {
	for _, match := range []string{"ip saddr " + placeholder, "ip6 saddr " + placeholder} {
		rule = strings.ReplaceAll(rule, match, "")
	}
	return strings.Join(strings.Fields(rule), " ")
}

// nftVerdict sets the verdict. A rule has only one.
func (c *act) nftVerdict(v verdict) {
	if c.verdict != unknown {
		c.question("it has two verdicts")
	}
	c.verdict = v
}

func (a *arguments) nftVerdictIsNext() bool {
	return slices.Contains([]string{"accept", "drop", "reject", "jump", "goto", "return", "counter", "comment", "dnat", "redirect", "ip", "ip6", "ct"}, a.peek())
}

func (c *act) nftProtocol(a *arguments) []packet.Protocol {
	var all []packet.Protocol
	for _, name := range c.nftSet(a) {
		list, ok := protocols(name)
		if !ok {
			c.question("the protocol %s has no ports", name)
		}
		all = append(all, list...)
	}
	return all
}

func (c *act) nftDevice(a *arguments) {
	values := c.nftSet(a)
	if len(values) != 1 {
		c.question("it names more than one interface, which a door lists in \"interfaces\"")
		return
	}
	c.on(strings.Trim(values[0], `"`))
}

// nftSet reads one value, or several with commas between them, with or without braces.
func (c *act) nftSet(a *arguments) []string {
	if a.accept("!=", "<", ">", "<=", ">=", "!") {
		c.question("it has a negation or a comparison, which a door has not")
	}
	if !a.accept("{") {
		a.accept("==")
		values := []string{a.next()}
		for len(a.words) > 1 && a.accept(",") {
			values = append(values, a.next())
		}
		return values
	}
	var values []string
	for !a.short {
		switch word := a.next(); word {
		case "}":
			return values
		case ",":
		default:
			values = append(values, word)
		}
	}
	return values
}
