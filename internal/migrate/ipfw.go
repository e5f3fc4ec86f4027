package migrate

import (
	"slices"
	"strconv"
)

// ipfw reads the arguments of ipfw. It understands adding a rule that allows the source at
// ports of this host, and deleting a rule by its number, which does not name ports.
func ipfw(words []string) (change, bool) {
	c := change{kind: opens}
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 && (a.words[0] == "-q" || a.words[0] == "-f") {
		a.next()
	}
	switch a.next() {
	case "add":
	case "delete":
		_, err := strconv.Atoi(a.next())
		return change{kind: closes}, err == nil && len(a.words) == 0
	default:
		return c, false
	}
	a.number()
	if !slices.Contains([]string{"allow", "accept", "pass", "permit"}, a.next()) {
		return c, false
	}
	protocol := both
	switch name := a.next(); name {
	case "ip", "all", "ip4", "ip6":
	default:
		var ok bool
		if protocol, ok = protocols(name); !ok {
			return c, false
		}
	}
	if a.next() != "from" || !isSource(a.next()) || a.next() != "to" || !slices.Contains([]string{"any", "me", "me6"}, a.next()) {
		return c, false
	}
	list := a.next()
	if list == "dst-port" {
		list = a.next()
	}
	for len(a.words) > 0 {
		switch a.next() {
		case "in", "setup", "keep-state":
		case "via", "recv":
			c.device = a.next()
		default:
			return c, false
		}
	}
	var ok bool
	c.ports, ok = portList(list, "-", protocol)
	return c, ok && !a.short
}
