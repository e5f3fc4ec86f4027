package migrate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

// joinTwins joins each door that only closes another with that other door. If there is
// none, or more than one, a comment says so.
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

// joinTo makes the sequence of d the close_sequence of the door that d closes. If it
// cannot, only a comment with the reason remains of d.
func (d *door) joinTo(doors []*door) {
	open := d.closes(doors)
	if len(open) == 0 {
		d.note("This door closes ports that no other door here opens, so it still runs its command.")
		d.onOpen = d.closing.script
		d.sandbox(d.onOpen)
		return
	}
	notes := d.notes
	d.left, d.notes = true, nil
	switch {
	case len(open) > 1:
		d.note("This door closed the ports of each of %s. Choose the door that it should close, and write there: close_sequence = %s",
			titles(open), knocks(d.sequence))
	case len(d.sequence) == 0:
		d.note("This door closed %s by one-time sequences, which cannot close a door. Write a close_sequence for that door, or let its window end.", titles(open))
	case open[0].closeSequence != nil:
		d.note("This door closed %s by the knocks %s. Another door closes that one already, and a door has one close_sequence.", titles(open), knocks(d.sequence))
	case slices.Equal(open[0].sequence, d.sequence):
		d.note("This door closed %s by the same knocks that open that one. Choose other knocks for its close_sequence.", titles(open))
	default:
		open[0].takeIn(d, notes)
	}
}

// closes returns the doors whose ports d closes: those with exactly these ports, or
// otherwise those with some of them. If one of these opens by the knocks of d in reverse
// order, closes returns only that one.
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

// takeIn makes the sequence of a door that closes d the close_sequence of d. notes are the
// notes of that door.
func (d *door) takeIn(other *door, notes []string) {
	d.closeSequence = other.sequence
	d.note("The close_sequence was the door [%s].", other.title)
	for _, note := range notes {
		if !slices.Contains(d.notes, note) {
			d.note("%s", note)
		}
	}
	if d.seqTimeout != other.seqTimeout || !slices.Equal(d.flags, other.flags) {
		d.note("That door had its own Seq_Timeout or TCPFlags. Here both sequences have the same.")
	}
	if other.closing.extra || len(other.closing.ports) == 0 || !slices.Equal(other.closing.ports, d.ports) {
		d.note("Its command does not run any more: %s", other.closing.text)
	}
}

func titles(doors []*door) string {
	var names []string
	for _, d := range doors {
		names = append(names, fmt.Sprintf("[%s] (line %d)", d.title, d.line))
	}
	return strings.Join(names, ", ")
}
