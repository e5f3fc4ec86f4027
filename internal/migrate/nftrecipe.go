package migrate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// nftRecipe reads a ruleset of nftables whose rules add sources to sets.
func nftRecipe(lines []line) *recipe {
	r := &recipe{what: "this is a ruleset of nftables"}
	timeouts := map[string]time.Duration{}
	defined := map[string]string{}
	set, chain := "", ""
	for _, l := range lines {
		text, _, _ := strings.Cut(nftText.ReplaceAllString(l.text, ""), "#")
		if name, value, ok := strings.Cut(strings.TrimPrefix(text, "define "), "="); ok && strings.HasPrefix(text, "define ") {
			defined[strings.TrimSpace(name)] = strings.TrimSpace(value)
			continue
		}
		text = strings.NewReplacer("{", " { ", "}", " } ", ",", " , ", ";", " ; ").Replace(text)
		words := strings.Fields(text)
		for i, w := range words {
			if name, isVariable := strings.CutPrefix(w, "$"); isVariable && defined[name] != "" {
				words[i] = defined[name]
			}
		}
		words = strings.Fields(strings.NewReplacer("{", " { ", "}", " } ", ",", " , ").Replace(strings.Join(words, " ")))
		for i := 0; i+1 < len(words); i++ {
			switch words[i] {
			case "set":
				set = words[i+1]
			case "chain":
				set, chain = "", words[i+1]
			case "timeout":
				if lasts, ok := nftTime(words[i+1]); ok && set != "" {
					timeouts[set] = lasts
				}
			}
		}
		r.nftRule(chain, l.number, words)
	}
	r.reach()
	for i := range r.moves {
		name, _, _ := strings.Cut(r.moves[i].to, " . ")
		if r.moves[i].lasts == 0 {
			r.moves[i].lasts = timeouts[name]
		}
	}
	return r
}

// nftText matches texts that are no part of a rule's conditions.
var nftText = regexp.MustCompile(`(?:comment|prefix)\s+"[^"]*"`)

// nftRule reads one rule. An element of an address and a port, as the next knock, is a stage
// of its own.
func (r *recipe) nftRule(chain string, line int, words []string) {
	m := move{chain: chain}
	var ports []packet.PortRange
	a := &arguments{words: words}
	c := act{everybody: true}
	for len(a.words) > 0 {
		switch word := a.next(); word {
		case "tcp", "udp":
			if a.accept("sport") {
				c.question("it names the source port %s, and a door knows only addresses", strings.Join(c.nftSet(a), ","))
			}
			if !a.accept("dport") {
				continue
			}
			if strings.HasPrefix(a.peek(), "@") { // ip saddr . tcp dport @set
				m.from.set = a.next()[1:] + " . " + fmt.Sprint(m.port.Number)
				continue
			}
			protocol, _ := protocols(word)
			var destination act
			list, ok := portList(strings.Join(destination.nftSet(a), ","), "-", protocol)
			if !ok || destination.doubt != "" {
				return
			}
			ports = list
			if port, ok := onePort(list); ok {
				m.port = port
			}
		case "ip", "ip6":
			switch field := a.next(); field {
			case "saddr":
				switch {
				case a.accept("!="):
					return
				case strings.HasPrefix(a.peek(), "@"):
					m.from.set = a.next()[1:]
				case a.accept("."): // the rest of what is looked up follows
				default:
					for _, value := range c.nftSet(a) {
						c.from(value)
					}
				}
			case "daddr":
				if values := c.nftSet(a); len(values) == 1 {
					c.toward(values[0])
				} else {
					c.question("it names more than one destination, which a door lists in \"to\"")
				}
			case "protocol", "nexthdr":
				c.nftSet(a)
			default:
				c.question("it looks at %s %s, which a door does not", word, field)
			}
		case "iif", "iifname":
			c.nftDevice(a)
		case "meta":
			switch field := a.next(); field {
			case "iif", "iifname":
				c.nftDevice(a)
			case "l4proto", "nfproto", "oif", "oifname":
				c.nftSet(a)
			default:
				c.question("it looks at meta %s, which a door does not", field)
			}
		case "ct":
			field := a.next()
			if values := c.nftSet(a); field == "state" && !slices.Contains(values, "new") {
				c.question("it is for connections that are %s, and a door is for new ones", strings.Join(values, ","))
			} else if field != "state" {
				c.question("it looks at ct %s, which a door does not", field)
			}
		case "ether", "fib", "socket", "mark", "pkttype", "osf", "time", "hour", "day", "vlan", "numgen", "rt", "icmp", "icmpv6":
			c.question("it looks at %s, which a door does not", word)
		case "limit":
			c.notes = append(c.notes, "The limit of a rule is left out. Your firewall's own rule for the ports can have it.")
		case "add", "update", "set":
			verb := word
			if verb == "set" && !a.accept("add", "update") {
				continue
			}
			if !strings.HasPrefix(a.peek(), "@") {
				continue
			}
			m.to = a.next()[1:]
			if a.accept("{") {
				for len(a.words) > 0 && !a.accept("}") {
					switch a.next() {
					case ".":
						if _, ok := packet.ParsePortNumber(a.peek()); ok {
							m.to += " . " + a.next()
						}
					case "timeout":
						m.lasts, _ = nftTime(a.next())
					}
				}
			}
		case "accept":
			if m.from.set != "" && m.to == "" {
				r.admits = append(r.admits, admit{line, ports, m.from, chain, termsOf(c)})
			}
		case "jump", "goto":
			r.jump(a.next(), jump{chain, termsOf(c)})
		}
	}
	if m.to != "" && m.port.Number != 0 {
		m.terms = termsOf(c)
		r.moves = append(r.moves, m)
	}
}
