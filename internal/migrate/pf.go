package migrate

import (
	"slices"
	"strings"
)

// pfctl reads the arguments of pfctl: elements of tables, and rules of an anchor that are
// flushed. The rules that are loaded from stdin are read by pfRules.
func pfctl(tool string, words []string) []act {
	c := act{tool: tool, everybody: true, verdict: accepts}
	table, order, anchor, flush := "", "", "", ""
	var addresses []string
	a := &arguments{words: slices.Clone(words)}
	for len(a.words) > 0 {
		switch option := a.next(); option {
		case "-t":
			table = a.next()
		case "-T":
			order = a.next()
		case "-a":
			anchor = a.next()
		case "-F":
			flush = a.next()
		case "-f":
			if a.next() != "-" {
				c.question("its rules are in a file that is not read here")
				return []act{c}
			}
		case "-k", "-K", "-i", "-x", "-D", "-p":
			a.next()
		case "-q", "-v", "-e", "-n", "-vv":
		default:
			if !strings.HasPrefix(option, "-") {
				addresses = append(addresses, option)
			}
		}
	}
	switch {
	case table != "":
		c.elsewhere = `the table "` + table + `" of pf`
		if isRefusal(table) {
			c.verdict = refuses
		}
		switch order {
		case "add":
		case "delete":
			c.verb = removes
		case "flush", "expire", "kill":
			c.verb = flushes
			return []act{c}
		default:
			return nil
		}
		for _, address := range addresses {
			c.from(address)
		}
		return []act{c}
	case strings.HasPrefix("rules", flush) && flush != "" || flush == "all":
		c.verb, c.chain = flushes, anchor
		return []act{c}
	}
	return nil
}

// pfRules reads rules of pf, such as: pass in quick proto tcp from %IP% to any port 22.
func pfRules(tool, anchor, text string) []act {
	var acts []act
	for rule := range strings.SplitSeq(text, "\n") {
		rule = strings.NewReplacer("{", " ", "}", " ", ",", " ").Replace(rule)
		a := &arguments{words: strings.Fields(rule)}
		c := act{tool: tool, everybody: true, chain: anchor}
		switch a.next() {
		case "pass":
			c.verdict = accepts
		case "block":
			c.verdict = refuses
		case "rdr":
			c.verdict = translates
			c.nat = "a rule of pf without the source: " + withoutSource(rule)
		default:
			continue
		}
		protocol, list := both, []string(nil)
		target := ""
		for len(a.words) > 0 {
			switch word := a.next(); word {
			case "in", "quick", "log", "all", "pass":
			case "out":
				c.path = outward
			case "on":
				c.on(a.next())
			case "inet":
				c.ipv4 = true
			case "inet6":
				c.ipv6 = true
			case "proto":
				names := a.next()
				var ok bool
				if protocol, ok = protocols(names); !ok {
					c.question("the protocol %s has no ports", names)
				}
				if next, ok := protocols(a.peek()); ok {
					protocol = append(slices.Clone(protocol), next...)
					a.next()
				}
			case "from", "to":
				target = word
				switch address := a.next(); {
				case word == "from":
					c.from(address)
				case address == "self" || strings.HasPrefix(address, "(") && !strings.Contains(address, ":"):
					// (em0) stands for the own addresses there.
				default:
					c.toward(address)
				}
			case "port":
				a.accept("=")
				for len(a.words) > 0 {
					if _, ok := portList(a.peek(), ":", protocol); !ok {
						break
					}
					list = append(list, a.next())
				}
				if target != "to" {
					c.question("it names source ports, and a door knows only addresses")
				}
			case "flags":
				a.next()
			case "keep", "modulate", "synproxy":
				a.accept("state")
			case "no":
				a.next()
			case "->":
				a.words = nil
			case "label", "tag", "queue":
				a.next()
			default:
				c.question("it has %s, which a door has not", word)
			}
		}
		var ok bool
		if len(list) == 0 {
			c.ports, c.every = everyPort(protocol), true
		} else if c.ports, ok = portList(strings.Join(list, ","), ":", protocol); !ok {
			c.question("%s are not ports that a rule file can name", strings.Join(list, ","))
		}
		acts = append(acts, c)
	}
	return acts
}
