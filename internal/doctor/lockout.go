package doctor

import (
	"fmt"
	"strings"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// ShutTo returns the doors that hide the port of an ssh connection from its client. The
// client must then knock before its next connection. ShutTo returns nil if the client is
// trusted.
func ShutTo(c *ruleset.Config, s host.SSH) (doors []string) {
	from := s.Client.Addr()
	if from.IsLoopback() { // the wall never drops packets from loopback
		return nil
	}
	for _, d := range c.Doors {
		if d.Guards(portOf(s.Server.Port())) && d.GuardsAt(s.Server.Addr(), true) {
			if packet.Among(from, c.Wall.Trusted) || packet.Among(from, d.Trusted) {
				return nil
			}
			doors = append(doors, d.Name)
		}
	}
	return doors
}

// Lockout says that doors hide the port of the user's ssh session. closes says when: the port
// "is about to close".
func Lockout(s host.SSH, doors []string, closes string) string {
	hides := "the door " + doors[0] + " hides it"
	if len(doors) > 1 {
		hides = "the doors " + strings.Join(doors, ", ") + " hide it"
	}
	return fmt.Sprintf("You are here by ssh, from %s to port %d, which %s: %s. This session goes on, but the next one has to knock. "+
		"Stay connected until you have tried that from another terminal.", s.Client.Addr(), s.Server.Port(), closes, hides)
}

// findLockout finds doors that the user's own ssh session will need to knock at next
// time.
func findLockout(h *Host) (findings []Finding, err error) {
	s, ok := host.Session()
	if !ok {
		return nil, nil
	}
	doors := ShutTo(h.Config, s)
	if len(doors) == 0 {
		return nil, nil
	}
	return []Finding{{Severity: Warning, Door: doors[0],
		Problem: fmt.Sprintf("You are here by ssh, from %s to port %d, which %s hides. This session continues, but the next one needs a knock.",
			s.Client.Addr(), s.Server.Port(), strings.Join(doors, " and ")),
		Cure: fmt.Sprintf("Test a knock from another terminal before you leave, or add %s to `trusted`.", s.Client.Addr())}}, nil
}
