package migrate

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// firewalld reads the arguments of firewall-cmd. It understands adding or removing a rich
// rule, a source with a port, or a direct rule of iptables. It does not understand a
// command without a source, which opens ports to everybody.
func firewalld(words []string) (change, bool) {
	var c change
	source, ok := false, true
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 && ok {
		switch option := a.option(); option {
		case "--permanent", "-q", "--quiet":
		case "--reload", "--complete-reload":
			return change{}, c.kind == nothing && len(a.words) == 0
		case "--zone":
			a.next()
		case "--timeout":
			c.lasts, ok = firewalldTime(a.next())
		case "--direct":
			return direct(a)
		case "--add-rich-rule", "--remove-rich-rule":
			ok = c.become(option) && !source && c.richRule(a.next())
			source = true
		case "--add-source", "--remove-source":
			ok = c.become(option) && !source && isSource(a.next())
			source = true
		case "--add-port", "--remove-port":
			port, protocol, _ := strings.Cut(a.next(), "/")
			var list []packet.Protocol
			if list, ok = protocols(protocol); ok && c.become(option) {
				var ports []packet.PortRange
				ports, ok = portList(port, "-", list)
				c.ports = append(c.ports, ports...)
			}
		default:
			ok = false
		}
	}
	return c, ok && !a.short && source && len(c.ports) > 0
}

// become sets the kind of the change from an option. It returns false if an earlier
// option has set another kind.
func (c *change) become(option string) bool {
	is := closes
	if strings.HasPrefix(option, "--add-") {
		is = opens
	}
	ok := c.kind == nothing || c.kind == is
	c.kind = is
	return ok
}

var firewalldDuration = regexp.MustCompile(`^[0-9]{1,6}[smh]?$`)

// firewalldTime reads a number with the unit s, m or h. Without a unit it is in seconds.
func firewalldTime(s string) (time.Duration, bool) {
	if !firewalldDuration.MatchString(s) {
		return 0, false
	}
	if !strings.ContainsAny(s, "smh") {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// direct reads the arguments of --direct, such as --add-rule ipv4 filter INPUT 0 and then
// those of iptables.
func direct(a *arguments) (change, bool) {
	action := map[string]string{"--add-rule": "-A", "--remove-rule": "-D"}[a.next()]
	a.next() // the family
	table, chain := a.next(), a.next()
	a.next() // the priority
	if action == "" || a.short {
		return change{}, false
	}
	return iptables(append([]string{"-t", table, action, chain}, a.words...))
}

// richRule reads a rich rule that accepts the source at a port or a service. The rule may
// also log.
func (c *change) richRule(rule string) bool {
	s, err := parseScript(rule) // the rule's values may have their own quotes
	if err != nil || len(s.parts) != 1 {
		return false
	}
	element, source, accepts := "", false, false
	var port, service, protocol string
	for i, word := range s.parts[0].words {
		key, value, isValue := strings.Cut(word, "=")
		switch {
		case accepts, (i == 0) != (word == "rule"):
			return false
		case i == 0:
		case !isValue && slices.Contains([]string{"source", "port", "service", "log"}, word):
			element = word
		case word == "accept":
			accepts = true
		case element == "" && (key == "family" || key == "priority"):
		case element == "source" && key == "address" && isSource(value):
			source = true
		case element == "port" && key == "port":
			port = value
		case element == "port" && key == "protocol":
			protocol = value
		case element == "service" && key == "name":
			service = value
		case element == "log" && (key == "prefix" || key == "level"):
		default:
			return false
		}
	}
	if !source || !accepts || (port == "") == (service == "") {
		return false
	}
	if service != "" {
		known, ok := portNames[service]
		c.ports = []packet.PortRange{known}
		return ok
	}
	list, ok := protocols(protocol)
	if ok {
		c.ports, ok = portList(port, "-", list)
	}
	return ok
}
