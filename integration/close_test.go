package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
)

// A client with an open window closes it by knocks: the opening knocks in reverse, or
// others.
func TestClosingKnocks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	doors := []struct {
		name  string
		port  int
		opens []packet.Port
		shuts []packet.Port // nil: the opening knocks in reverse
		rules string
	}{
		{name: "turned", port: 22, opens: survivalKnocks, rules: `sequence = [4113, "27911/udp", 1840]
			close_sequence = [1840, "27911/udp", 4113]`},
		{name: "other", port: 23, opens: []packet.Port{tcp(5227), tcp(911), tcp(30411)}, shuts: []packet.Port{udp(6011), tcp(911)},
			rules: `sequence = [5227, 911, 30411]
			close_sequence = ["6011/udp", 911]`},
	}
	var rules string
	for i := range doors {
		door := &doors[i]
		if door.shuts == nil {
			door.shuts = slices.Clone(door.opens)
			slices.Reverse(door.shuts)
		}
		l.serve(door.port)
		rules += "door \"" + door.name + "\" {\n ports = [" + fmt.Sprint(door.port) + "]\n window = \"10m\"\n" + door.rules + "\n}\n"
	}
	d := l.run(rules)
	for _, door := range doors {
		for _, server := range []netip.Addr{server4, server6} {
			leaves, stays := nth(1, server), nth(2, server)
			told := func(what string) int { return d.logged(what, "door="+door.name, "source="+leaves.String()+" ") }
			l.knock(leaves, server, door.opens...)
			l.knock(stays, server, door.opens...)
			session, err := l.dial(leaves, server, door.port, deadline)
			must(t, err)
			defer session.Close()
			must(t, talks(session))
			// Repeat this, because common knocks must not confuse the two sequences. Send
			// them back to back, as clients do.
			const rounds = 10
			for n := range rounds {
				l.knock(leaves, server, door.shuts...)
				d.waitForCount(n+1, "closed ", "door="+door.name, "source="+leaves.String()+" ", "it has knocked to close it")
				l.knock(leaves, server, door.opens...)
				d.waitForCount(n+2, "opened ", "door="+door.name, "source="+leaves.String()+" ")
			}
			l.knock(leaves, server, door.shuts...)
			d.waitForCount(rounds+1, "closed ", "door="+door.name, "source="+leaves.String()+" ")
			if l.admits(leaves, server, door.port) {
				t.Errorf("%s, %s: a new connection gets through the door that was closed", door.name, server)
			}
			if err := talks(session); err != nil {
				t.Errorf("%s, %s: the session is dead: %v", door.name, server, err)
			}
			if !l.letsIn(stays, server, door.port) {
				t.Errorf("%s, %s: another source is refused", door.name, server)
			}
			// A client without a window closes none, and the closing knocks do not admit
			// it.
			l.knock(leaves, server, door.shuts...)
			if l.admits(leaves, server, door.port) {
				t.Errorf("%s, %s: admitted by the knocks that close", door.name, server)
			}
			if n := told("opened "); n != rounds+1 {
				t.Errorf("%s, %s: the door was opened %d times, want %d", door.name, server, n, rounds+1)
			}
		}
	}
}
