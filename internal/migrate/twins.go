package migrate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

// joinTwins joins each door that only closes others with those others. If that is not
// possible, a comment says why.
func joinTwins(doors []*door) {
	for _, d := range doors {
		if d.closing != nil {
			d.joinTo(doors)
		}
	}
	for _, d := range doors {
		if !d.noStop {
			continue
		}
		until := "for ever"
		if d.closeSequence != nil {
			until = "until it was closed by a knock"
		}
		d.note("knockd left this door open %s. Here it closes after %s. Connections stay when it closes. "+
			"For later connections, make the window longer.", until, duration(d.window))
	}
}

// joinTo makes the sequence of d the close_sequence of the doors that d closes. If it
// cannot, only a comment with the reason remains of d.
func (d *door) joinTo(doors []*door) {
	open := d.closes(doors)
	guarded := slices.DeleteFunc(slices.Clone(open), func(o *door) bool { return o.opened.reason() != "" })
	switch {
	case len(open) == 0:
		d.alone()
		return
	case len(guarded) == 0:
		d.besides(open)
		return
	}
	d.left = true
	d.notes = nil
	if len(d.sequence) == 0 {
		d.note("This door closed %s by one-time sequences, which cannot close a door. Write a close_sequence for that door, or let its window end.", names(guarded))
		return
	}
	var closedBefore, same []*door
	for _, o := range guarded {
		switch {
		case o.closeSequence != nil:
			closedBefore = append(closedBefore, o)
		case slices.Equal(o.sequence, d.sequence):
			same = append(same, o)
		default:
			o.takeIn(d)
		}
	}
	if len(closedBefore) > 0 {
		d.note("This door closed %s by the knocks %s. Another door closes that already, and a door has one close_sequence.", names(closedBefore), knocks(d.sequence))
	}
	if len(same) > 0 {
		d.note("This door closed %s by the same knocks that open that. Choose other knocks for its close_sequence.", names(same))
	}
}

// alone makes a door of one that closes nothing that another door opens.
func (d *door) alone() {
	what := "This door closes ports that no other door here opens"
	if slices.ContainsFunc(d.closing.acts, func(a act) bool { return a.verb == adds }) {
		what = "This door refuses sources, and no other door here lets them in"
	}
	d.stillRuns(what)
}

// besides makes a door of one that takes back what doors that guard no ports let in.
func (d *door) besides(open []*door) {
	d.stillRuns("This door takes back what " + names(open) + " lets in")
	if len(d.sequence) == 0 {
		return
	}
	d.note("If you write ports there, remove this door, and write there as well: close_sequence = %s", knocks(d.sequence))
	for _, o := range open {
		if o.proposed && o.closeSequence == nil && !slices.Equal(o.sequence, d.sequence) {
			o.closeSequence = d.sequence
		}
	}
}

// stillRuns makes a door that runs its command, if the daemon can.
func (d *door) stillRuns(what string) {
	if !d.closing.runs {
		d.left = true
		d.note("%s. It is left out, as the daemon cannot run its command: %s", what, d.closing.text)
		return
	}
	d.note("%s, so it still runs its command.", what)
	d.onOpen = d.closing.script
	d.sandbox()
}

// closes returns the doors that d closes: those of which it takes back all, or otherwise
// those of which it takes back a part. If one of these opens by the knocks of d in reverse
// order, closes returns only that one.
func (d *door) closes(doors []*door) []*door {
	backwards := slices.Clone(d.sequence)
	slices.Reverse(backwards)
	isBackwards := func(o *door) bool { return len(backwards) > 0 && slices.Equal(o.sequence, backwards) }
	find := func(is func(*door) bool) (found []*door) {
		for _, o := range doors {
			if o.opened != nil && is(o) {
				found = append(found, o)
			}
		}
		return found
	}
	named := slices.DeleteFunc(slices.Clone(d.closing.acts), func(a act) bool { return a.isAnonymous() })
	if len(named) == 0 {
		found := find(isBackwards)
		if all := find(func(*door) bool { return true }); len(found) == 0 && len(all) == 1 {
			return all
		}
		return found
	}
	found := find(func(o *door) bool { return o.opened.isTakenBack(named, true) })
	if len(found) == 0 {
		found = find(func(o *door) bool { return o.opened.isTakenBack(named, false) })
	}
	if i := slices.IndexFunc(found, isBackwards); i >= 0 {
		return found[i : i+1]
	}
	return found
}

// isTakenBack reports whether acts take back the whole opening, or a part of it.
func (o *opening) isTakenBack(acts []act, whole bool) bool {
	var closed []packet.PortRange
	byName := false
	for i := range acts {
		for j := range o.acts {
			if acts[i].takesBack(&o.acts[j]) {
				closed = append(closed, acts[i].ports...)
				byName = byName || len(acts[i].ports) == 0
			}
		}
	}
	if !whole || byName {
		return byName || len(closed) > 0
	}
	closed = packet.MergeRanges(closed)
	return len(closed) > 0 && !slices.ContainsFunc(o.ports, func(r packet.PortRange) bool {
		return !slices.ContainsFunc(closed, func(c packet.PortRange) bool {
			return c.Protocol == r.Protocol && c.First <= r.First && r.Last <= c.Last
		})
	})
}

// takeIn makes the sequence of a door that closes d the close_sequence of d.
func (d *door) takeIn(other *door) {
	d.closeSequence = other.sequence
	d.note("The close_sequence was the door [%s].", other.title)
	if d.seqTimeout != other.seqTimeout || !slices.Equal(d.flags, other.flags) {
		d.note("That door had its own Seq_Timeout or TCPFlags. Here both sequences have the same.")
	}
	var closed []packet.PortRange
	for _, a := range other.closing.acts {
		closed = append(closed, a.ports...)
	}
	if other.closing.extra || !slices.Equal(distinct(closed), d.ports) {
		d.note("Its command does not run any more: %s", other.closing.text)
	}
}

// name returns the former name of a door with its place.
func (d *door) name() string {
	return fmt.Sprintf("[%s] (%s)", d.title, d.place())
}

func (d *door) place() string {
	if d.file != "" {
		return fmt.Sprintf("%s line %d", d.file, d.line)
	}
	return fmt.Sprintf("line %d", d.line)
}

func names(doors []*door) string {
	var all []string
	for _, d := range doors {
		all = append(all, d.name())
	}
	return strings.Join(all, ", ")
}
