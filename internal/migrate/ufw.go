package migrate

import (
	"slices"
	"strconv"

	"github.com/knockwall/knockwall/internal/packet"
)

// ufwBoth is the comment for a rule of ufw that names no protocol.
const ufwBoth = "ufw opened these ports for TCP and UDP, as its command names no protocol. Remove the ports that are not in use."

// ufw reads the arguments of ufw. It understands adding or deleting a rule that allows the
// source at some ports. Deleting by number does not name ports.
func ufw(words []string) (change, bool) {
	c := change{kind: opens}
	var list, app, end string
	protocol, source, ok := both, false, true
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 && a.words[0] == "--force" {
		a.next()
	}
	if len(a.words) == 1 && a.words[0] == "reload" {
		return change{}, true
	}
	verb := a.next()
	if verb == "rule" {
		verb = a.next()
	}
	switch verb {
	case "insert":
		a.next()
		verb = a.next()
	case "prepend":
		verb = a.next()
	case "delete":
		c.kind, verb = closes, a.next()
		if _, err := strconv.Atoi(verb); err == nil {
			return c, len(a.words) == 0
		}
	}
	if verb != "allow" {
		return c, false
	}
	for len(a.words) > 0 && ok {
		switch a.next() {
		case "in":
		case "on":
			c.device = a.next()
		case "proto":
			protocol, ok = protocols(a.next())
		case "from":
			end, source = "from", isSource(a.next())
			ok = source
		case "to":
			end, ok = "to", a.next() == "any"
		case "port":
			ok = end == "to" && list == ""
			list = a.next()
		case "app":
			app = a.next()
		case "comment":
			a.next()
		default:
			ok = false
		}
	}
	if !ok || a.short || !source {
		return c, false
	}
	if app != "" {
		c.ports = []packet.PortRange{portNames["ssh"]}
		return c, list == "" && (app == "OpenSSH" || app == "SSH")
	}
	if len(protocol) > 1 {
		c.note = ufwBoth
	}
	c.ports, ok = portList(list, ":", protocol)
	return c, ok
}
