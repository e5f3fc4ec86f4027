package migrate

import (
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

var nftFamilies = []string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}

// nft reads the arguments of nft. It understands adding or deleting a rule that accepts
// the source at some ports. Deleting by handle does not name ports. It does not
// understand elements of sets, as the ports are in a rule elsewhere.
func nft(words []string) (change, bool) {
	var c change
	// The whole command may be one quoted word, and braces may have no spaces around them.
	text := strings.NewReplacer("{", " { ", "}", " } ", ",", " , ").Replace(strings.Join(words, " "))
	a := &arguments{words: strings.Fields(text)}
	switch verb := a.next(); {
	case a.next() != "rule":
		return c, false
	case verb == "add" || verb == "insert":
		c.kind = opens
	case verb == "delete":
		c.kind = closes
	default:
		return c, false
	}
	if len(a.words) > 0 && slices.Contains(nftFamilies, a.words[0]) {
		a.next()
	}
	a.next() // the table
	if slices.Contains(elsewhere, strings.ToUpper(a.next())) {
		return c, false
	}
	if len(a.words) == 2 && a.words[0] == "handle" && c.kind == closes {
		return c, true
	}
	source, accepts := false, false
	for len(a.words) > 0 {
		if accepts && a.words[0] != "comment" {
			return c, false
		}
		switch a.next() {
		case "position", "handle", "index":
			a.next()
		case "ip", "ip6":
			if a.next() != "saddr" || !isSource(a.next()) {
				return c, false
			}
			source = true
		case "tcp":
			if !c.nftPorts(a, onlyTCP) {
				return c, false
			}
		case "udp":
			if !c.nftPorts(a, []packet.Protocol{packet.UDP}) {
				return c, false
			}
		case "iif", "iifname":
			c.device = strings.Trim(a.next(), `"`)
		case "ct":
			if a.next() != "state" || !slices.Contains(a.nftSet(), "new") {
				return c, false
			}
		case "counter":
		case "comment":
			a.words = nil // the comment is the rest, of any number of words
		case "accept":
			accepts = true
		default:
			return c, false
		}
	}
	return c, !a.short && source && accepts && len(c.ports) > 0
}

// nftPorts reads ports such as dport 22 or dport { 22, 80-88 }.
func (c *change) nftPorts(a *arguments, protocol []packet.Protocol) bool {
	if a.next() != "dport" || len(c.ports) > 0 {
		return false
	}
	var ok bool
	c.ports, ok = portList(strings.Join(a.nftSet(), ","), "-", protocol)
	return ok
}

// nftSet reads one value, or several with commas between them, with or without braces.
func (a *arguments) nftSet() []string {
	values := []string{a.next()}
	if values[0] != "{" {
		for len(a.words) > 1 && a.words[0] == "," {
			a.next()
			values = append(values, a.next())
		}
		return values
	}
	values = nil
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
