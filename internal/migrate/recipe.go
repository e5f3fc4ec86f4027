package migrate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/sequence"
)

// recipe is port knocking by the rules of a firewall alone: each knock puts the source into
// a set, if it is in the set of the knock before, and a rule accepts the sources in the last
// set.
type recipe struct {
	what   string // "this is" and the format, for messages
	moves  []move
	admits []admit
}

// move is a rule that puts sources into a set.
type move struct {
	port  packet.Port // at this knock
	from  stage       // if they are in this set; no name: any source
	to    string
	lasts time.Duration // how long they stay in it; 0: not said here
}

// stage is a set that a rule asks for.
type stage struct {
	set    string
	within time.Duration // since the source was put into it; 0: not said here
}

// admit is a rule that accepts the sources in a set.
type admit struct {
	ports []packet.PortRange // empty: every port
	from  stage
}

// maxRules is the maximum number of rules of a recipe that are followed.
const maxRules = 10_000

// recipe turns a recipe into doors. If something is missing that a door needs, it says what the
// file is and what it lacks.
func (im *importer) recipe(r *recipe) *ruleFile {
	f := &ruleFile{from: im.name, kind: fromRecipe}
	if len(r.admits) == 0 || len(r.moves) == 0 {
		im.fail(0, "%s, and it has no knocks that can be imported: no rule accepts sources from a set that other rules fill at a port", r.what)
		return nil
	}
	var doors []*door
	for _, a := range r.admits {
		d := r.door(im, a)
		if d == nil {
			continue
		}
		if same := slices.IndexFunc(doors, func(o *door) bool { return slices.Equal(o.sequence, d.sequence) }); same >= 0 {
			o := doors[same]
			o.ports = distinct(slices.Concat(o.ports, d.ports))
			o.window, o.seqTimeout = max(o.window, d.window), max(o.seqTimeout, d.seqTimeout)
			continue
		}
		doors = append(doors, d)
	}
	f.doors = doors
	if len(doors) > maxDoors {
		im.fail(0, "a file has at most %d doors", maxDoors)
	}
	return f
}

// door follows a recipe backwards, from the rule that accepts to the first knock.
func (r *recipe) door(im *importer, a admit) *door {
	d := &door{title: a.from.set, ports: a.ports}
	if len(a.ports) == 0 {
		d.ports = everyPort(both)
		d.opened = &opening{every: true, ports: d.ports}
		d.note(atEveryPort)
	}
	next := a.from
	for {
		var into []move
		for _, m := range r.moves {
			if m.to == next.set && !slices.ContainsFunc(into, func(o move) bool { return o.port == m.port && o.from.set == m.from.set }) {
				into = append(into, m)
			}
		}
		// A recipe may hear the first knock again, at any stage.
		if first := slices.IndexFunc(into, func(m move) bool { return m.from.set == "" }); first >= 0 && len(into) > 1 {
			into = slices.DeleteFunc(into, func(m move) bool { return m.port == into[first].port && m.from.set != "" })
		}
		switch {
		case len(into) == 0:
			im.fail(0, "%s, and no rule here puts sources into %s at a knock", r.what, printable.Escape(next.set))
			return nil
		case len(into) > 1:
			im.fail(0, "%s, and more than one knock leads to %s, which a sequence cannot have: write a door for each way", r.what, printable.Escape(next.set))
			return nil
		case len(d.sequence) == sequence.MaxSteps:
			im.fail(0, "%s, and its knocks lead in a circle, or are more than %d", r.what, sequence.MaxSteps)
			return nil
		}
		m := into[0]
		lasts := next.within
		if lasts == 0 {
			lasts = m.lasts
		}
		if lasts == 0 {
			im.fail(0, "%s, and it does not say for how long a source stays in %s: write a door with sequence, seq_timeout and window by hand", r.what, printable.Escape(next.set))
			return nil
		}
		if len(d.sequence) == 0 {
			d.window = limited(lasts)
		} else {
			d.seqTimeout += lasts
		}
		d.sequence = append([]packet.Port{m.port}, d.sequence...)
		if m.from.set == "" {
			break
		}
		next = m.from
	}
	if d.seqTimeout == 0 {
		d.seqTimeout = knockdSeqTimeout * time.Second // of a single knock
	}
	if d.seqTimeout > sequence.MaxTimeout {
		d.seqTimeout = sequence.MaxTimeout
	}
	if len(d.sequence) > 2 {
		d.note("Each knock had its own time. Here seq_timeout is the sum of them, from the first knock to the last.")
	}
	return d
}

// chainRule is a rule of iptables, as far as a recipe needs it.
type chainRule struct {
	port   packet.Port
	ports  []packet.PortRange
	needs  []stage
	sets   []string
	target string
}

// recentRules reads rules of iptables that use the match recent, as iptables-save prints them
// or as commands.
func recentRules(lines []line) *recipe {
	chains := map[string][]chainRule{}
	var order []string
	jumped := map[string]bool{}
	for _, l := range lines {
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
			all := chainRule{port: before.port, ports: before.ports, needs: slices.Concat(before.needs, rule.needs)}
			if len(rule.ports) > 0 {
				all.port, all.ports = rule.port, rule.ports
			}
			last := stage{}
			if len(all.needs) > 0 {
				last = all.needs[len(all.needs)-1]
			}
			for _, set := range rule.sets {
				if all.port.Number != 0 {
					r.moves = append(r.moves, move{port: all.port, from: last, to: set})
				}
			}
			if rule.target == "ACCEPT" && last.set != "" {
				r.admits = append(r.admits, admit{all.ports, last})
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

// recentRule reads the matches and the target of a rule. It returns false if the rule has a
// negation, as it is then for the sources that are in no set.
func recentRule(words []string) (rule chainRule, ok bool) {
	a := &arguments{words: words}
	protocol, list := onlyTCP, ""
	type operation struct {
		kind, name string
		within     time.Duration
	}
	var operations []operation
	for len(a.words) > 0 {
		switch option := a.option(); option {
		case "!":
			return rule, false
		case "-p", "--protocol":
			if p, known := protocols(a.next()); known {
				protocol = p
			}
		case "--dport", "--dports", "--destination-port":
			list = a.next()
		case "-m", "--match":
			if a.next() == "recent" {
				operations = append(operations, operation{name: "DEFAULT"})
			}
		case "--set", "--rcheck", "--update", "--remove":
			if n := len(operations); n > 0 {
				operations[n-1].kind = option
			}
		case "--name":
			if name, n := a.next(), len(operations); n > 0 {
				operations[n-1].name = name
			}
		case "--seconds":
			if lasts, known := nftTime(a.next()); known && len(operations) > 0 {
				operations[len(operations)-1].within = lasts
			}
		case "-j", "--jump", "-g", "--goto":
			rule.target = a.next()
		}
	}
	if list != "" {
		var known bool
		if rule.ports, known = portList(list, ":", protocol); !known {
			return rule, false
		}
		if first := rule.ports[0]; len(rule.ports) == 1 && first.First == first.Last {
			rule.port = packet.Port{Number: first.First, Protocol: first.Protocol}
		}
	}
	for _, o := range operations {
		switch o.kind {
		case "--set":
			rule.sets = append(rule.sets, o.name)
		case "--rcheck", "--update":
			rule.needs = append(rule.needs, stage{o.name, o.within})
		}
	}
	return rule, true
}

// nftRecipe reads a ruleset of nftables whose rules add sources to sets.
func nftRecipe(lines []line) *recipe {
	r := &recipe{what: "this is a ruleset of nftables"}
	timeouts := map[string]time.Duration{}
	defined := map[string]string{}
	set := ""
	for _, l := range lines {
		text, _, _ := strings.Cut(l.text, "#")
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
				set = ""
			case "timeout":
				if lasts, ok := nftTime(words[i+1]); ok && set != "" {
					timeouts[set] = lasts
				}
			}
		}
		r.nftRule(words)
	}
	for i := range r.moves {
		name, _, _ := strings.Cut(r.moves[i].to, " . ")
		if r.moves[i].lasts == 0 {
			r.moves[i].lasts = timeouts[name]
		}
	}
	return r
}

// nftRule reads one rule. An element of an address and a port, as the next knock, is a stage
// of its own.
func (r *recipe) nftRule(words []string) {
	var m move
	var ports []packet.PortRange
	a := &arguments{words: words}
	c := act{}
	for len(a.words) > 0 {
		switch word := a.next(); word {
		case "tcp", "udp":
			if !a.accept("dport") {
				continue
			}
			if strings.HasPrefix(a.peek(), "@") { // ip saddr . tcp dport @set
				m.from.set = a.next()[1:] + " . " + fmt.Sprint(m.port.Number)
				continue
			}
			protocol, _ := protocols(word)
			list, ok := portList(strings.Join(c.nftSet(a), ","), "-", protocol)
			if !ok || c.doubt != "" {
				return
			}
			ports = list
			if len(list) == 1 && list[0].First == list[0].Last {
				m.port = packet.Port{Number: list[0].First, Protocol: list[0].Protocol}
			}
		case "ip", "ip6":
			if !a.accept("saddr") {
				continue
			}
			if a.accept("!=") {
				return
			}
			if strings.HasPrefix(a.peek(), "@") {
				m.from.set = a.next()[1:]
			}
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
				r.admits = append(r.admits, admit{ports, m.from})
			}
		}
	}
	if m.to != "" && m.port.Number != 0 {
		r.moves = append(r.moves, m)
	}
}

// routerOS reads an export of MikroTik RouterOS whose firewall adds sources to address lists.
func routerOS(lines []line) *recipe {
	r := &recipe{what: "this is an export of MikroTik RouterOS"}
	joined := ""
	for _, l := range lines {
		if begin, ok := strings.CutSuffix(l.text, `\`); ok {
			joined += begin
			continue
		}
		words := wordsIn(joined + l.text)
		joined = ""
		if !slices.Contains(words, "add") {
			continue
		}
		values := map[string]string{}
		for _, word := range words {
			if key, value, ok := strings.Cut(word, "="); ok {
				values[key] = value
			}
		}
		protocol, _ := protocols(values["protocol"])
		if protocol == nil {
			protocol = onlyTCP
		}
		ports, ok := portList(values["dst-port"], "-", protocol)
		from := stage{set: values["src-address-list"]}
		if strings.HasPrefix(from.set, "!") || values["disabled"] == "yes" {
			continue
		}
		switch values["action"] {
		case "add-src-to-address-list":
			lasts, _ := routerTime(values["address-list-timeout"])
			if ok && len(ports) == 1 && ports[0].First == ports[0].Last {
				r.moves = append(r.moves, move{port: packet.Port{Number: ports[0].First, Protocol: ports[0].Protocol}, from: from, to: values["address-list"], lasts: lasts})
			}
		case "accept", "":
			if from.set != "" && (values["chain"] == "input" || values["chain"] == "") {
				r.admits = append(r.admits, admit{ports, from})
			}
		}
	}
	return r
}

// routerTime reads a time such as 30s, 1h30m or 00:01:00.
func routerTime(s string) (time.Duration, bool) {
	if parts := strings.Split(s, ":"); len(parts) == 3 {
		s = parts[0] + "h" + parts[1] + "m" + parts[2] + "s"
	}
	return nftTime(s)
}

// recipeReader returns the reader of a file that is neither knockd's nor Atomicorp's, or nil.
func recipeReader(lines []line) func([]line) *recipe {
	begins := func(prefixes ...string) bool {
		return slices.ContainsFunc(lines, func(l line) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(l.text, p) })
		})
	}
	switch {
	case begins("/ip firewall", "add action=", "add chain="):
		return routerOS
	case begins("table ", "add table ", "define ", "flush ruleset"):
		return nftRecipe
	case begins("*filter", "-A ", "-N ", "iptables ", "/sbin/iptables ", "/usr/sbin/iptables ", "sudo iptables ", "$IPT"):
		return recentRules
	}
	return nil
}

// isUCI reports whether lines are a configuration of OpenWrt.
func isUCI(lines []line) bool {
	return strings.HasPrefix(lines[0].text, "config ") && slices.ContainsFunc(lines, func(l line) bool {
		return strings.HasPrefix(l.text, "option ") || strings.HasPrefix(l.text, "list ")
	})
}
