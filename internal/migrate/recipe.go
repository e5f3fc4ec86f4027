package migrate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/sequence"
)

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

// jump is a rule that leads to a chain.
type jump struct {
	from string // a chain
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
		into := r.leading(next.set)
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

// leading returns the moves into a set, each knock once.
func (r *recipe) leading(set string) (into []move) {
	for _, m := range r.moves {
		if m.to != set {
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
	return into
}

// propose makes the door a comment, with the reason.
func (d *door) propose(doubt string) {
	d.left, d.proposed = true, true
	d.note("These rules open ports, but a door cannot do the same for certain: %s. This door would be wider or another one. "+
		"So correct it, or accept what it does, and remove the # before it:", doubt)
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

// onePort returns the port if there is only one.
func onePort(ports []packet.PortRange) (packet.Port, bool) {
	if len(ports) != 1 || ports[0].First != ports[0].Last {
		return packet.Port{}, false
	}
	return packet.Port{Number: ports[0].First, Protocol: ports[0].Protocol}, true
}
