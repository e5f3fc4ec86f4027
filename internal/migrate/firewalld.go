package migrate

import (
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

// firewalld reads the arguments of firewall-cmd.
func firewalld(tool string, words []string) []act {
	base := act{tool: tool, everybody: true, verdict: accepts}
	var acts []act
	zone := ""
	var sources []act // --add-source: who is in the zone
	a := &arguments{words: slices.Clone(words)}
	one := func(option string) *act {
		c := base
		if strings.HasPrefix(option, "--remove-") {
			c.verb = removes
		}
		acts = append(acts, c)
		return &acts[len(acts)-1]
	}
	for len(a.words) > 0 {
		switch option := a.option(); option {
		case "--permanent", "-q", "--quiet", "--reload", "--complete-reload", "--runtime-to-permanent", "--state":
		case "--zone", "--policy":
			zone = a.next()
		case "--timeout":
			var ok bool
			if base.lasts, ok = nftTime(a.next()); !ok {
				base.question("its timeout is not a time")
			}
		case "--direct":
			return direct(tool, a)
		case "--add-rich-rule", "--remove-rich-rule":
			one(option).richRule(a.next())
		case "--add-source", "--remove-source":
			c := base
			if strings.HasPrefix(option, "--remove-") {
				c.verb = removes
			}
			c.from(a.next())
			sources = append(sources, c)
		case "--add-port", "--remove-port":
			c, text := one(option), a.next()
			list, name, _ := strings.Cut(text, "/")
			protocol, known := protocols(name)
			ports, ok := portList(list, "-", protocol)
			if c.ports = ports; !ok || !known {
				c.question("%s is not a port that a rule file can name", text)
			}
		case "--add-service", "--remove-service":
			c, name := one(option), a.next()
			var ok bool
			if c.ports, ok = servicePorts(name); !ok {
				c.question("it names the service %q, whose ports `firewall-cmd --info-service` shows", name)
			}
		case "--add-forward-port", "--remove-forward-port":
			one(option).forwardPort(a.next())
		case "--ipset":
			set := a.next()
			base.elsewhere = `the set "` + set + `"`
			if isRefusal(set) {
				base.verdict = refuses
			}
		case "--add-entry", "--remove-entry":
			one(option).from(a.next())
		case "--add-interface", "--change-interface", "--remove-interface", "--change-zone":
			one(option).question("it moves an interface to another zone")
			a.next()
		case "--set-default-zone":
			one(option).question("it changes the default zone to %s", a.next())
		case "--panic-on", "--panic-off":
			one(option).question("it changes firewalld's panic mode")
		case "--add-protocol", "--add-icmp-block", "--add-masquerade", "--remove-masquerade":
			one(option).question("it has the option %s", option)
		default:
			if strings.HasPrefix(option, "--list") || strings.HasPrefix(option, "--get") || strings.HasPrefix(option, "--query") {
				return nil
			}
			one(option).question("it has the option %s", option)
		}
	}
	if a.short {
		base.question("its last option has no value")
		acts = append(acts, base)
	}
	for i := range acts {
		acts[i].lasts = base.lasts
		if base.doubt != "" {
			acts[i].question("%s", base.doubt)
		}
	}
	return inZone(acts, sources, zone)
}

// inZone returns the acts for the sources that a command adds to a zone: they reach the
// ports that it opens in the same zone, or those of the zone.
func inZone(acts, sources []act, zone string) []act {
	if len(sources) == 0 {
		return acts
	}
	if len(acts) == 0 {
		for i := range sources {
			switch zone {
			case "trusted":
				sources[i].ports, sources[i].every = everyPort(both), true
			case "drop", "block":
				sources[i].verdict, sources[i].ports, sources[i].every = refuses, everyPort(both), true
			default:
				sources[i].elsewhere = `firewalld's zone "` + zone + `"`
			}
		}
		return sources
	}
	for i := range acts {
		acts[i].everybody = acts[i].everybody && sources[0].everybody
		acts[i].doubt += sources[0].doubt
	}
	return acts
}

// direct reads the arguments of --direct: --add-rule ipv4 filter INPUT 0, or --passthrough
// ipv4, and then those of iptables.
func direct(tool string, a *arguments) []act {
	verb := a.next()
	program := map[string]string{"ipv4": "iptables", "ipv6": "ip6tables", "eb": "ebtables"}[a.next()]
	if verb == "--passthrough" || verb == "--add-passthrough" || verb == "--remove-passthrough" {
		acts := iptables(program, a.words)
		for i := range acts {
			if verb == "--remove-passthrough" {
				acts[i].verb = removes
			}
		}
		return acts
	}
	action := map[string]string{"--add-rule": "-A", "--remove-rule": "-D"}[verb]
	table, chain := a.next(), a.next()
	a.next() // the priority
	if action == "" || a.short {
		return []act{{tool: tool, doubt: "it has the direct option " + verb, verdict: accepts, everybody: true}}
	}
	return iptables(program, append([]string{"-t", table, action, chain}, a.words...))
}

// richRule reads a rich rule: firewalld.richlanguage(5).
func (c *act) richRule(rule string) {
	words := wordsIn(rule) // values may have their own quotes
	element, port, protocol, service := "", "", "", ""
	forward := map[string]string{}
	c.verdict = unknown
	for i, word := range words {
		key, value, isValue := strings.Cut(word, "=")
		switch {
		case i == 0:
			if word != "rule" {
				c.question("a rich rule begins with: rule")
			}
		case key == "family":
			c.ipv4, c.ipv6 = value == "ipv4", value == "ipv6"
		case !isValue && slices.Contains([]string{"accept", "reject", "drop", "mark"}, word):
			element = word
			c.verdict = map[string]verdict{"accept": accepts, "reject": refuses, "drop": refuses}[word]
			if word == "mark" {
				c.question("it marks packets, and other rules decide what becomes of them")
			}
		case !isValue && word == "NOT", key == "invert":
			c.question("it has a negation, which a door has not")
		case !isValue && word == "limit":
			c.notes = append(c.notes, "The limit of the rule is left out. Your firewall's own rule for the ports can have it.")
			element = word
		case !isValue:
			element = word
		case key == "priority", element == "log", element == "limit", element == "audit", element == "nflog", element == "reject":
		case element == "source" && key == "address":
			c.from(value)
		case element == "source":
			c.question("it names the source by %s", key)
		case element == "destination" && key == "address":
			c.toward(value)
		case element == "port" && key == "port":
			port = value
		case element == "port" && key == "protocol":
			protocol = value
		case element == "service" && key == "name":
			service = value
		case element == "forward-port":
			forward[key] = value
		default:
			c.question("it has %s, which a door has not", word)
		}
	}
	switch {
	case len(forward) > 0:
		c.verdict = translates
		c.nat = "firewall-cmd --permanent --add-forward-port=port=" + forward["port"] + ":proto=" + forward["protocol"] +
			":toport=" + forward["to-port"] + ":toaddr=" + forward["to-addr"]
		c.richPorts(forward["port"], forward["protocol"])
	case service != "":
		var ok bool
		if c.ports, ok = servicePorts(service); !ok {
			c.question("it names the service %q, whose ports `firewall-cmd --info-service` shows", service)
		}
	case port != "":
		c.richPorts(port, protocol)
	default:
		c.ports, c.every = everyPort(both), true
	}
	if c.verdict == unknown {
		c.question("the rich rule neither accepts nor refuses")
	}
}

func (c *act) richPorts(list, protocol string) {
	known, ok := protocols(protocol)
	if !ok {
		c.question("the protocol %s has no ports", protocol)
		known = []packet.Protocol{packet.TCP}
	}
	if c.ports, ok = portList(list, "-", known); !ok {
		c.question("%s are not ports that a rule file can name", list)
	}
}

// forwardPort reads a value such as port=443:proto=tcp:toport=2200:toaddr=10.0.0.5.
func (c *act) forwardPort(text string) {
	fields := map[string]string{}
	for field := range strings.SplitSeq(text, ":") {
		key, value, _ := strings.Cut(field, "=")
		fields[key] = value
	}
	c.verdict = translates
	c.nat = "firewall-cmd --permanent --add-forward-port=" + text
	c.richPorts(fields["port"], fields["proto"])
}
