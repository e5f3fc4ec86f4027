package migrate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

// joinTwins finds for each door that only closes the one that it closes, and
// makes one door of them. Where there is none, or more than one, it is said.
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
		d.note("knockd left it open %s; here it closes after %s, and what is connected by then stays. "+
			"For connections that begin later, make the window longer.", until, duration(d.window))
	}
}

// joinTo makes d the close_sequence of the door that it closes. If that cannot
// be, only the reason why is left of d.
func (d *door) joinTo(doors []*door) {
	open := d.closes(doors)
	if len(open) == 0 {
		d.note("It closes what no other door here opens, so it goes on to run its command.")
		d.onOpen = d.closing.script
		d.sandbox(d.onOpen)
		return
	}
	notes := d.notes
	d.left, d.notes = true, nil
	switch {
	case len(open) > 1:
		d.note("It closed what each of %s opens. Choose the one that is meant, and write there: close_sequence = %s",
			titles(open), knocks(d.sequence))
	case len(d.sequence) == 0:
		d.note("It closed %s by one-time sequences, and no door is closed by these. Give that one a close_sequence, or let its window end.", titles(open))
	case open[0].closeSequence != nil:
		d.note("It closed %s, which another door closes already, by the knocks %s. A door has one close_sequence.", titles(open), knocks(d.sequence))
	case slices.Equal(open[0].sequence, d.sequence):
		d.note("It closed %s by the same knocks that open that one. Choose other knocks for its close_sequence.", titles(open))
	default:
		open[0].takeIn(d, notes)
	}
}

// closes returns the doors whose ports d closes: those with just these ports, or
// else with some of them. If there are several, the one whose knocks are those of
// d backwards is meant.
func (d *door) closes(doors []*door) []*door {
	backwards := slices.Clone(d.sequence)
	slices.Reverse(backwards)
	find := func(among []*door, is func(*door) bool) []*door {
		return slices.DeleteFunc(slices.Clone(among), func(o *door) bool { return !is(o) })
	}
	isBackwards := func(o *door) bool { return len(backwards) > 0 && slices.Equal(o.sequence, backwards) }
	all := find(doors, func(o *door) bool { return len(o.ports) > 0 && o.to == d.to })
	if len(d.closing.ports) == 0 {
		return find(all, isBackwards)
	}
	found := find(all, func(o *door) bool { return slices.Equal(o.ports, d.closing.ports) && o.device == d.closing.device })
	if len(found) == 0 {
		found = find(all, func(o *door) bool {
			return slices.ContainsFunc(o.ports, func(r packet.PortRange) bool { return slices.Contains(d.closing.ports, r) })
		})
	}
	if meant := find(found, isBackwards); len(meant) > 0 {
		return meant
	}
	return found
}

// takeIn makes the knocks of a door that closes d, and had these notes, the
// close_sequence of d.
func (d *door) takeIn(other *door, notes []string) {
	d.closeSequence = other.sequence
	d.note("Its close_sequence was the door [%s].", other.title)
	for _, note := range notes {
		if !slices.Contains(d.notes, note) {
			d.note("%s", note)
		}
	}
	if d.seqTimeout != other.seqTimeout || !slices.Equal(d.flags, other.flags) {
		d.note("That one had a Seq_Timeout or TCPFlags of its own; here they are the same for both sequences.")
	}
	if other.closing.extra || len(other.closing.ports) == 0 || !slices.Equal(other.closing.ports, d.ports) {
		d.note("Its command is not run any more: %s", other.closing.text)
	}
}

func titles(doors []*door) string {
	var names []string
	for _, d := range doors {
		names = append(names, fmt.Sprintf("[%s] (line %d)", d.title, d.line))
	}
	return strings.Join(names, ", ")
}
