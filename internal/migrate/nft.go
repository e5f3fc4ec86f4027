package migrate

import (
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

var nftFamilies = []string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}

// nft reads the arguments of nft: a rule that accepts the source at some ports,
// added or deleted. Deleting by handle names no ports. Elements of sets are not
// understood: what a set opens stands elsewhere.
func nft(words []string) (change, bool) {
	var c change
	// A shell may have had the whole as one word, and braces stand with or without
	// space around them.
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
			a.words = nil // the rest, of as many words as it has
		case "accept":
			accepts = true
		default:
			return c, false
		}
	}
	return c, !a.short && source && accepts && len(c.ports) > 0
}

// nftPorts reads dport 22 and dport { 22, 80-88 }.
func (c *change) nftPorts(a *arguments, protocol []packet.Protocol) bool {
	if a.next() != "dport" || len(c.ports) > 0 {
		return false
	}
	var ok bool
	c.ports, ok = portList(strings.Join(a.nftSet(), ","), "-", protocol)
	return ok
}

// nftSet reads one value, or several in braces or with only commas between them.
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
