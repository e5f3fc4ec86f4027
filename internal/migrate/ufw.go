package migrate

import (
	"slices"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

// ufwBoth is the comment for a rule of ufw that names no protocol.
const ufwBoth = "ufw opened these ports for TCP and UDP, as its command names no protocol. Remove the ports that are not in use."

// ufw reads the arguments of ufw: a rule in the simple or in the full syntax of ufw(8).
func ufw(tool string, words []string) []act {
	c := act{tool: tool, everybody: true, chain: "ufw"}
	a := &arguments{words: slices.Clone(words)}
	for a.accept("--force", "--dry-run", "-f") {
	}
	if a.accept("route") {
		c.path = forwarded
	}
	a.accept("rule")
	verb := a.next()
	switch verb {
	case "insert":
		a.next()
		verb = a.next()
	case "prepend":
		verb = a.next()
	case "delete":
		c.verb = removes
		if number := a.number(); number != "" {
			return []act{c} // a number names nothing
		}
		if a.accept("route") {
			c.path = forwarded
		}
		verb = a.next()
	case "reload", "status", "logging", "show", "version", "app":
		return nil
	case "disable", "reset":
		c.ports, c.every, c.verdict = everyPort(both), true, accepts
		c.question("it switched the whole firewall off")
		return []act{c}
	case "enable":
		c.verdict = refuses
		c.ports, c.every = everyPort(both), true
		return []act{c}
	case "default":
		c.verdict = accepts
		if !a.accept("allow") {
			c.verdict = refuses
			a.next()
		}
		if a.accept("outgoing") {
			c.path = outward
		}
		c.ports, c.every = everyPort(both), true
		return []act{c}
	}
	switch verb {
	case "allow":
		c.verdict = accepts
	case "limit":
		c.verdict = accepts
		c.notes = append(c.notes, "The limit of ufw is left out. Your firewall's own rule for the ports can have it.")
	case "deny", "reject":
		c.verdict = refuses
	default:
		c.question("ufw has no command %s", verb)
		return []act{c}
	}
	return []act{c.ufwRule(a)}
}

// ufwRule reads what follows the verb of a rule.
func (c act) ufwRule(a *arguments) act {
	var list, app, end string
	protocol := both
	for len(a.words) > 0 {
		switch word := a.next(); word {
		case "in", "log", "log-all":
		case "out":
			if c.path == inward {
				c.path = outward
			}
		case "on":
			if c.path != outward && c.device == "" {
				c.on(a.next())
			} else {
				a.next()
			}
		case "proto":
			name := a.next()
			var ok bool
			if protocol, ok = protocols(name); !ok {
				c.question("the protocol %s has no ports", name)
			}
		case "from":
			end = "from"
			c.from(a.next())
		case "to":
			end = "to"
			if address := a.next(); isSource(address) {
				c.path = outward
			} else {
				c.toward(address)
			}
		case "port":
			if end == "from" && c.path != outward {
				c.question("it names the source port %s, and a door knows only addresses", a.peek())
			}
			list = joined(list, a.next())
		case "app":
			app = a.next()
		case "comment":
			a.next()
		default: // the simple syntax: 22, 22/tcp, ssh or OpenSSH
			number, name, hasProtocol := strings.Cut(word, "/")
			if _, isPort := portList(number, ":", both); hasProtocol && isPort {
				list = joined(list, number)
				var ok bool
				if protocol, ok = protocols(name); !ok {
					c.question("the protocol %s has no ports", name)
				}
			} else if _, err := strconv.Atoi(strings.NewReplacer(",", "", ":", "").Replace(word)); err == nil {
				list = joined(list, word)
			} else {
				app = word
			}
		}
	}
	if a.short {
		c.question("the rule is not complete")
	}
	if c.path == forwarded && c.to == "" {
		c.question("it lets packets through to other hosts and does not say which, and a door needs their addresses: to = [\"192.0.2.1\"]")
	}
	return c.ufwPorts(list, app, protocol)
}

func (c act) ufwPorts(list, app string, protocol []packet.Protocol) act {
	var ok bool
	switch {
	case app != "":
		if c.ports, ok = servicePorts(app); !ok {
			c.question("it names the application %q, whose ports `ufw app info` shows", app)
		}
	case list != "":
		if c.ports, ok = portList(list, ":", protocol); !ok {
			c.question("%s are not ports that a rule file can name", list)
		} else if _, _, named := strings.Cut(list, "/"); len(protocol) > 1 && !named {
			if ports, known := servicePorts(list); known { // ufw takes the protocols from /etc/services
				c.ports = ports
				break
			}
			c.notes = append(c.notes, ufwBoth)
		}
	default:
		c.ports, c.every = everyPort(protocol), true
	}
	return c
}
