package migrate

import (
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// maxRules is the maximum number of rules of a recipe that are followed.
const maxRules = 10_000

// recentRules reads rules of iptables that use the match recent, as iptables-save prints them
// or as commands.
func recentRules(lines []line) *recipe {
	chains := map[string][]chainRule{}
	var order []string
	jumped := map[string]bool{}
	for _, l := range continued(lines) {
		words := wordsIn(l.text)
		i := slices.IndexFunc(words, func(w string) bool { return w == "-A" || w == "--append" || w == "-I" || w == "--insert" })
		if i < 0 || i+1 >= len(words) {
			continue
		}
		chain := words[i+1]
		rule, ok := recentRule(words[i+2:])
		if !ok {
			continue
		}
		rule.line = l.number
		if chains[chain] == nil {
			order = append(order, chain)
		}
		chains[chain] = append(chains[chain], rule)
		jumped[rule.target] = true
	}
	r := &recipe{what: "these are rules of iptables"}
	visits := 0
	var follow func(chain string, before chainRule, depth int)
	follow = func(chain string, before chainRule, depth int) {
		for _, rule := range chains[chain] {
			if visits++; visits > maxRules || depth > 2*sequence.MaxSteps {
				return
			}
			all := chainRule{port: before.port, ports: before.ports, needs: slices.Concat(before.needs, rule.needs), terms: before.and(rule.terms)}
			if len(rule.ports) > 0 {
				all.port, all.ports = rule.port, rule.ports
			}
			last := stage{}
			if len(all.needs) > 0 {
				last = all.needs[len(all.needs)-1]
			}
			for _, set := range rule.sets {
				if all.port.Number != 0 {
					r.moves = append(r.moves, move{port: all.port, from: last, to: set, terms: all.terms})
				}
			}
			if rule.target == "ACCEPT" && last.set != "" {
				r.admits = append(r.admits, admit{line: rule.line, ports: all.ports, from: last, terms: all.terms})
			} else if chains[rule.target] != nil {
				follow(rule.target, all, depth+1)
			}
		}
	}
	for _, chain := range order {
		if !jumped[chain] {
			follow(chain, chainRule{}, 0)
		}
	}
	return r
}

// continued joins lines that end in a backslash with the next one, as a shell does.
func continued(lines []line) (joined []line) {
	open := false
	for _, l := range lines {
		text, more := strings.CutSuffix(l.text, "\\")
		if open {
			last := &joined[len(joined)-1]
			last.text += " " + text
		} else {
			joined = append(joined, line{l.number, text})
		}
		open = more
	}
	return joined
}

// chainRule is a rule of iptables, as far as a recipe needs it.
type chainRule struct {
	port   packet.Port
	ports  []packet.PortRange
	needs  []stage
	sets   []string
	target string
	line   int
	terms
}

// recentRule reads the matches and the target of a rule. It returns false if the rule has a
// negation, as it is then for the sources that are in no set.
func recentRule(words []string) (rule chainRule, ok bool) {
	a := &arguments{words: words}
	a.number() // its place in the chain
	r := &iptablesRule{act: act{everybody: true}}
	type operation struct {
		kind, name string
		within     time.Duration
	}
	operations := []operation{{}} // the first one is of no match
	for len(a.words) > 0 {
		last := &operations[len(operations)-1]
		switch option := a.option(); option {
		case "!":
			return rule, false
		case "-m", "--match":
			if a.accept("recent") {
				operations = append(operations, operation{name: "DEFAULT"})
				continue
			}
			a.words = append([]string{option}, a.words...)
			r.option(a)
		case "--set", "--rcheck", "--update", "--remove":
			last.kind = option
		case "--name":
			last.name = a.next()
		case "--seconds":
			if lasts, known := nftTime(a.next()); known {
				last.within = lasts
			}
		case "--hitcount":
			if count := a.next(); count != "1" {
				r.question("it counts %s packets of the source (--hitcount)", count)
			}
		case "--mask":
			if mask := a.next(); mask != "255.255.255.255" && mask != "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" {
				r.question("it knows sources by their prefix %s, which a door does by source_prefix", mask)
			}
		case "--rdest":
			r.question("it remembers destinations (--rdest)")
		case "--rsource", "--reap", "--rttl":
		default:
			a.words = append([]string{option}, a.words...)
			r.option(a)
		}
	}
	r.checkStates()
	rule.target = r.target
	protocol, known := protocols(r.protocol)
	if !known {
		protocol = onlyTCP
	}
	if r.ports != "" {
		if rule.ports, known = portList(r.ports, ":", protocol); !known {
			return rule, false
		}
		rule.port, _ = onePort(rule.ports)
	}
	rule.terms = termsOf(r.act)
	for _, o := range operations[1:] {
		switch o.kind {
		case "--set":
			rule.sets = append(rule.sets, o.name)
		case "--rcheck", "--update":
			rule.needs = append(rule.needs, stage{o.name, o.within})
		}
	}
	return rule, true
}
