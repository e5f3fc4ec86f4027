package migrate

import (
	"slices"
	"strings"
)

// ipfw reads the arguments of ipfw, in the older syntax, as allow tcp from A to B 22, and in
// the newer one, as pass proto tcp src-ip A dst-port 22.
func ipfw(tool string, words []string) []act {
	c := act{tool: tool, everybody: true}
	text := strings.NewReplacer("{", " ", "}", " ", "(", " ", ")", " ").Replace(strings.Join(words, " "))
	a := &arguments{words: strings.Fields(text)}
	for strings.HasPrefix(a.peek(), "-") {
		a.next()
	}
	if a.accept("set") {
		a.next()
	}
	switch verb := a.next(); verb {
	case "add":
	case "delete", "del":
		var acts []act
		if a.accept("set") { // whatever is in it
			c.verb = removes
			return []act{c}
		}
		for len(a.words) > 0 {
			c.verb, c.number = removes, "ipfw "+trimZeros(a.next())
			acts = append(acts, c)
		}
		return acts
	case "table":
		name := strings.Trim(a.next(), `"`)
		c.elsewhere, c.verdict = `the table "`+name+`" of ipfw`, accepts
		if isRefusal(name) {
			c.verdict = refuses
		}
		switch a.next() {
		case "add":
		case "delete":
			c.verb = removes
		case "flush":
			c.verb = flushes
			return []act{c}
		default:
			return nil
		}
		c.from(a.next())
		return []act{c}
	case "flush", "-f":
		c.verb = flushes
		return []act{c}
	default:
		return nil
	}
	if number := a.number(); number != "" {
		c.number = "ipfw " + trimZeros(number)
	}
	if a.accept("set") {
		a.next()
	}
	if a.accept("prob") {
		a.next()
		c.question("it decides by chance")
	}
	switch action := a.next(); action {
	case "allow", "accept", "pass", "permit":
		c.verdict = accepts
	case "deny", "drop", "reject", "reset", "unreach", "unreach6", "reset6":
		c.verdict = refuses
		if strings.HasPrefix(action, "unreach") {
			a.next()
		}
	case "fwd", "forward", "divert", "nat", "tee":
		c.verdict = translates
		target := a.next()
		c.nat = "ipfw add " + action + " " + target + " " + strings.ReplaceAll(strings.Join(a.words, " "), placeholder, "any")
	case "count", "skipto", "check-state", "pipe", "queue":
		c.verdict = observes
	default:
		c.question("ipfw has no action %s", action)
	}
	for a.accept("log") {
		if a.accept("logamount") {
			a.next()
		}
	}
	return []act{c.ipfwBody(a)}
}

func trimZeros(number string) string {
	return strings.TrimLeft(number, "0")
}

// ipfwBody reads what follows the action of a rule.
func (c act) ipfwBody(a *arguments) act {
	protocol := both
	list := ""
	name := func(name string) bool {
		if slices.Contains([]string{"ip", "all", "ip4", "ipv4", "ip6", "ipv6"}, name) {
			c.ipv4, c.ipv6 = strings.HasSuffix(name, "4"), strings.HasSuffix(name, "6")
			return true
		}
		p, ok := protocols(name)
		if ok {
			protocol = p
		}
		return ok
	}
	either := func() { // proto tcp or proto udp
		first := protocol
		a.accept("proto")
		if word := a.next(); !name(word) {
			c.question("the protocol %s has no ports", word)
		}
		protocol = append(slices.Clone(first), protocol...)
	}
	// endpoint reads an address, and the ports that may follow it.
	endpoint := func(from bool) {
		address := a.next()
		switch {
		case address == "me" || address == "me6":
			if from {
				c.path = outward
			}
		case from:
			c.from(address)
		case isSource(address):
			c.path = outward
		default:
			c.toward(address)
		}
		if _, ok := portList(a.peek(), "-", protocol); ok && a.peek() != "" {
			if from {
				c.question("it names the source port %s, and a door knows only addresses", a.peek())
				a.next()
				return
			}
			list = joined(list, a.next())
		}
	}
	for len(a.words) > 0 {
		switch word := a.next(); word {
		case "from":
			endpoint(true)
		case "to":
			endpoint(false)
		case "proto":
			if word := a.next(); !name(word) {
				c.question("the protocol %s has no ports", word)
			}
		case "or":
			either()
		case "src-ip", "src-ip6":
			c.from(a.next())
		case "dst-ip", "dst-ip6":
			endpoint(false)
		case "dst-port":
			list = joined(list, a.next())
		case "src-port":
			c.question("it names the source port %s, and a door knows only addresses", a.next())
		case "in", "setup", "keep-state", ":default", "established-or-new", "antispoof":
		case "out":
			c.path = outward
		case "via", "recv":
			c.on(a.next())
		case "xmit":
			a.next()
		case "limit":
			a.next()
			a.number()
			c.notes = append(c.notes, "The limit of the rule is left out: a door has max_connections.")
		case "//":
			a.words = nil
		default:
			if !name(word) {
				c.question("it has %s, which a door has not", word)
			}
		}
	}
	if a.short {
		c.question("the rule is not complete")
	}
	var ok bool
	switch {
	case list == "":
		c.ports, c.every = everyPort(protocol), true
	default:
		if c.ports, ok = portList(list, "-", protocol); !ok {
			c.question("%s are not ports that a rule file can name", list)
		}
	}
	return c
}
