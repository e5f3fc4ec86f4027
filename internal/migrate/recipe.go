package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
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
	jumps  map[string][]jump // to chains, if the rules are not followed from chain to chain
}

// move is a rule that puts sources into a set.
type move struct {
	port  packet.Port // at this knock
	from  stage       // if they are in this set; no name: any source
	to    string
	lasts time.Duration // how long they stay in it; 0: not said here
	chain string        // if the recipe has jumps
	terms
}

// stage is a set that a rule asks for.
type stage struct {
	set    string
	within time.Duration // since the source was put into it; 0: not said here
}

// admit is a rule that accepts the sources in a set.
type admit struct {
	line  int
	ports []packet.PortRange // empty: every port
	from  stage
	chain string // if the recipe has jumps
	terms
}

// terms are what a rule asks for beside ports and sets.
type terms struct {
	device string // interface that packets come in by; "": any
	to     string // destination; "": any
	doubt  string // what a door cannot ask for; "": nothing
	notes  string // what a door does in another way
}

func termsOf(a act) terms { return terms{a.device, a.to, a.doubt, strings.Join(a.notes, " ")} }

// apart is the doubt about rules with different terms.
const apart = "its rules name different interfaces or destinations"

// and returns the terms of a rule that is reached by another.
func (t terms) and(o terms) terms {
	if t.device != "" && o.device != "" && t.device != o.device || t.to != "" && o.to != "" && t.to != o.to {
		t.doubt = cmp.Or(t.doubt, apart)
	}
	t.device, t.to, t.doubt, t.notes = cmp.Or(t.device, o.device), cmp.Or(t.to, o.to), cmp.Or(t.doubt, o.doubt), strings.TrimSpace(t.notes+" "+o.notes)
	return t
}

// or returns the terms of two rules of which one suffices.
func (t terms) or(o terms) terms {
	switch none := (terms{}); {
	case t == o, t == none:
		return t
	case o == none:
		return o
	}
	t.doubt = cmp.Or(t.doubt, o.doubt, apart)
	return t
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
		if d.left {
			doors = append(doors, d)
			continue
		}
		if same := slices.IndexFunc(doors, func(o *door) bool { return !o.left && slices.Equal(o.sequence, d.sequence) }); same >= 0 {
			o := doors[same]
			if o.device != d.device || !slices.Equal(o.to, d.to) {
				d.propose(apart)
				doors = append(doors, d)
				continue
			}
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

// jump is a rule that leads to a chain.
type jump struct {
	from string // a chain
	terms
}

// maxJumps is the maximum number of jumps that are followed one after the other, and of
// different ones to one chain.
const maxJumps = 4

// jump adds a rule that leads to a chain.
func (r *recipe) jump(to string, j jump) {
	if r.jumps == nil {
		r.jumps = map[string][]jump{}
	}
	if all := r.jumps[to]; len(all) <= maxJumps && !slices.Contains(all, j) {
		r.jumps[to] = append(all, j)
	}
}

// reach adds to all rules the terms of the jumps by which packets reach their chains.
func (r *recipe) reach() {
	for i := range r.moves {
		r.moves[i].terms = r.termsOf(r.moves[i].chain, 0).and(r.moves[i].terms)
	}
	for i := range r.admits {
		r.admits[i].terms = r.termsOf(r.admits[i].chain, 0).and(r.admits[i].terms)
	}
}

func (r *recipe) termsOf(chain string, depth int) (all terms) {
	jumps := r.jumps[chain]
	if len(jumps) > maxJumps || len(jumps) > 0 && depth == maxJumps {
		return terms{doubt: "too many rules lead to its chains"}
	}
	for i, j := range jumps {
		if under := r.termsOf(j.from, depth+1).and(j.terms); i == 0 {
			all = under
		} else {
			all = all.or(under)
		}
	}
	return all
}

// propose makes the door a comment, with the reason.
func (d *door) propose(doubt string) {
	d.left, d.proposed = true, true
	d.note("These rules open ports, but a door cannot do the same for certain: %s. This door would be wider or another one. "+
		"So correct it, or accept what it does, and remove the # before it:", doubt)
}

// door follows a recipe backwards, from the rule that accepts to the first knock.
func (r *recipe) door(im *importer, a admit) *door {
	d := &door{title: a.from.set, line: a.line, ports: a.ports, device: a.device}
	if a.to != "" {
		d.to = []string{a.to}
	}
	if d.device != "" {
		d.note("The rule named the interface %s, so the door guards only this one. "+elsewhereOpen, d.device)
	}
	doubt, notes := a.doubt, []string{a.notes}
	if len(a.ports) == 0 {
		d.ports = everyPort(both)
		d.opened = &opening{every: true, ports: d.ports}
		d.note(atEveryPort)
	}
	next := a.from
	for {
		var into []move
		for _, m := range r.moves {
			if m.to != next.set {
				continue
			}
			if same := slices.IndexFunc(into, func(o move) bool { return o.port == m.port && o.from.set == m.from.set }); same >= 0 {
				into[same].terms = into[same].terms.or(m.terms)
			} else {
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
		if doubt = cmp.Or(doubt, m.doubt); m.device != a.device || m.terms.to != a.to {
			doubt = cmp.Or(doubt, apart)
		}
		notes = append(notes, m.notes)
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
	for _, note := range notes {
		if note != "" && !slices.Contains(d.notes, note) {
			d.notes = append(d.notes, note)
		}
	}
	if doubt != "" {
		d.propose(doubt)
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
	line   int
	terms
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
		if first := rule.ports[0]; len(rule.ports) == 1 && first.First == first.Last {
			rule.port = packet.Port{Number: first.First, Protocol: first.Protocol}
		}
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
			if len(list) == 1 && list[0].First == list[0].Last {
				m.port = packet.Port{Number: list[0].First, Protocol: list[0].Protocol}
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
		also := routerTerms(values)
		switch values["action"] {
		case "add-src-to-address-list":
			lasts, _ := routerTime(values["address-list-timeout"])
			if ok && len(ports) == 1 && ports[0].First == ports[0].Last {
				r.moves = append(r.moves, move{port: packet.Port{Number: ports[0].First, Protocol: ports[0].Protocol}, from: from, to: values["address-list"], lasts: lasts, chain: values["chain"], terms: also})
			}
		case "accept", "":
			if from.set != "" && (values["chain"] == "input" || values["chain"] == "") {
				r.admits = append(r.admits, admit{l.number, ports, from, values["chain"], also})
			}
		case "jump":
			r.jump(values["jump-target"], jump{values["chain"], also})
		}
	}
	r.reach()
	return r
}

// routerKeys are the properties of a rule of RouterOS that are read, or that change nothing.
var routerKeys = []string{"action", "address-list", "address-list-timeout", "chain", "comment", "connection-state", "disabled", "dst-address", "dst-port",
	"in-interface", "in-interface-list", "jump-target", "log", "log-prefix", "place-before", "protocol", "src-address-list"}

// routerTerms reads what else a rule of RouterOS asks for.
func routerTerms(values map[string]string) terms {
	c := act{everybody: true}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(routerKeys, key) {
			c.question("it asks for %s=%s, which a door does not", key, values[key])
		}
	}
	if to := values["dst-address"]; to != "" {
		c.toward(to)
	}
	// The router's interfaces have other names than this host's.
	if device := cmp.Or(values["in-interface"], values["in-interface-list"]); device != "" {
		c.notes = []string{"The rule named the router's interface " + device + ". Here the door guards all interfaces but lo. To guard some only, write interfaces = [\"eth0\"]."}
	}
	return termsOf(c)
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
