package migrate

import (
	"slices"
	"strings"
)

// ipset reads the arguments of ipset.
func ipset(tool string, words []string) []act {
	c := act{tool: tool, everybody: true, verdict: accepts}
	a := &arguments{words: slices.Clone(words)}
	for a.accept("-exist", "-!", "-q", "-quiet", "--exist", "--quiet") {
	}
	switch verb := a.next(); verb {
	case "add", "-A", "--add":
	case "del", "-D", "--del", "--delete":
		c.verb = removes
	case "flush", "-F", "--flush":
		c.verb = flushes
		if name := a.next(); name != "" {
			c.elsewhere = `the set "` + name + `"`
		}
		return []act{c}
	default:
		return nil // as create and save, which open nothing
	}
	name := a.next()
	c.elsewhere = `the set "` + name + `"`
	if isRefusal(name) {
		c.verdict = refuses
	}
	for i, part := range strings.Split(a.next(), ",") {
		if i == 0 {
			c.from(part)
			continue
		}
		protocol, list := onlyTCP, part // without a protocol a port is one of TCP: ipset(8)
		if name, port, ok := strings.Cut(part, ":"); ok {
			if protocol, ok = protocols(name); !ok {
				c.question("the protocol %s has no ports", name)
			}
			list = port
		}
		var ok bool
		if c.ports, ok = portList(list, "-", protocol); !ok {
			c.question("its element has the part %s", part)
		}
	}
	for len(a.words) > 0 {
		switch option := a.next(); option {
		case "timeout":
			if seconds := a.next(); seconds != "0" { // 0 is for ever
				var ok bool
				if c.lasts, ok = nftTime(seconds); !ok {
					c.question("its timeout %s is not a time", seconds)
				}
			}
		case "-exist", "-!", "-q":
		case "comment", "packets", "bytes", "skbmark", "skbprio", "skbqueue":
			a.next()
		case "nomatch":
			c.question("the element is an exception from the set")
		}
	}
	return []act{c}
}

// csf reads the arguments of csf, whose lists hold addresses for every port.
func csf(tool string, words []string) []act {
	c := act{tool: tool, everybody: true, verdict: accepts, ports: everyPort(both), every: true}
	a := &arguments{words: slices.Clone(words)}
	switch option := a.next(); option {
	case "-a", "--add", "-ta", "--tempallow":
	case "-ar", "--addrm", "-tr", "--temprm", "-tra", "--temprma":
		c.verb = removes
	case "-d", "--deny", "-td", "--tempdeny":
		c.verdict = refuses
	default:
		return nil
	}
	c.from(a.next())
	for len(a.words) > 0 {
		word := a.next()
		if word == "-p" {
			var ok bool
			if c.ports, ok = portList(a.next(), "-", onlyTCP); !ok {
				c.question("it names ports that a rule file cannot name")
			}
			c.every = false
		} else if lasts, ok := nftTime(word); ok && c.lasts == 0 {
			c.lasts = lasts
		}
	}
	return []act{c}
}

// shorewall reads the arguments of shorewall, whose allow and drop name no ports.
func shorewall(tool string, words []string) []act {
	c := act{tool: tool, everybody: true}
	a := &arguments{words: slices.Clone(words)}
	switch a.next() {
	case "allow":
		// It only takes back a drop.
		c.verb, c.verdict = removes, refuses
	case "drop", "reject", "logdrop", "logreject":
		c.verdict = refuses
	case "add":
		c.verdict, c.elsewhere = accepts, "a zone of shorewall"
		for _, word := range a.words {
			if strings.Contains(word, placeholder) {
				c.everybody = false
			}
		}
		return []act{c}
	case "delete":
		c.verb, c.verdict, c.elsewhere, c.everybody = removes, accepts, "a zone of shorewall", false
		return []act{c}
	default:
		return nil
	}
	c.from(a.next())
	c.ports, c.every = everyPort(both), true
	return []act{c}
}
