package knocks

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/packet"
)

// A client with an open window closes it by knocks: the opening knocks in reverse, or
// others.
func TestClosingKnocks(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	doors := []struct {
		name  string
		port  int
		opens []packet.Port
		shuts []packet.Port // nil: the opening knocks in reverse
		rules string
	}{
		{name: "turned", port: 22, opens: lab.Knocks, rules: `sequence = [4113, "27911/udp", 1840]
			close_sequence = [1840, "27911/udp", 4113]`},
		{name: "other", port: 23, opens: []packet.Port{lab.TCP(5227), lab.TCP(911), lab.TCP(30411)}, shuts: []packet.Port{lab.UDP(6011), lab.TCP(911)},
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
		l.ServeTCP(door.port)
		rules += "door \"" + door.name + "\" {\n ports = [" + fmt.Sprint(door.port) + "]\n window = \"10m\"\n" + door.rules + "\n}\n"
	}
	d := l.Run(rules)
	for _, door := range doors {
		for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
			leaves, stays := lab.Source(1, server), lab.Source(2, server)
			told := func(what string) int { return d.Logged(what, "door="+door.name, "source="+leaves.String()+" ") }
			l.Knock(leaves, server, door.opens...)
			l.Knock(stays, server, door.opens...)
			session, err := l.Dial(leaves, server, door.port, lab.Deadline)
			lab.Must(t, err)
			defer session.Close()
			lab.Must(t, lab.Exchange(session))
			// Repeat this, because common knocks must not confuse the two sequences. Send
			// them back to back, as clients do.
			const rounds = 10
			for n := range rounds {
				l.Knock(leaves, server, door.shuts...)
				d.WaitForCount(n+1, "closed ", "door="+door.name, "source="+leaves.String()+" ", "it has knocked to close it")
				l.Knock(leaves, server, door.opens...)
				d.WaitForCount(n+2, "opened ", "door="+door.name, "source="+leaves.String()+" ")
			}
			l.Knock(leaves, server, door.shuts...)
			d.WaitForCount(rounds+1, "closed ", "door="+door.name, "source="+leaves.String()+" ")
			if l.AdmitsAtOnce(leaves, server, door.port) {
				t.Errorf("%s, %s: a new connection gets through the door that was closed", door.name, server)
			}
			if err := lab.Exchange(session); err != nil {
				t.Errorf("%s, %s: the session is dead: %v", door.name, server, err)
			}
			if !l.Admits(stays, server, door.port) {
				t.Errorf("%s, %s: another source is refused", door.name, server)
			}
			// A client without a window closes none, and the closing knocks do not admit
			// it.
			l.Knock(leaves, server, door.shuts...)
			if l.AdmitsAtOnce(leaves, server, door.port) {
				t.Errorf("%s, %s: admitted by the knocks that close", door.name, server)
			}
			if n := told("opened "); n != rounds+1 {
				t.Errorf("%s, %s: the door was opened %d times, want %d", door.name, server, n, rounds+1)
			}
		}
	}
}
