package doctor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/sessions"
)

// findAnswers finds doors of which this host sees one direction only: clients whose
// connections are accepted and never answered here, or connections whose clients send
// another way, past the wall.
func findAnswers(h *Host) (findings []Finding, err error) {
	seen := make([]struct{ both, forth, back int }, len(h.Config.Doors))
	err = sessions.Directions(func(s sessions.Session, direction sessions.Seen) {
		for i := range h.Config.Doors {
			d := &h.Config.Doors[i]
			if !d.Guards(s.Port) || !d.GuardsAt(s.Local, s.Here) {
				continue
			}
			switch direction {
			case sessions.Both:
				seen[i].both++
			case sessions.ToService:
				seen[i].forth++
			case sessions.FromService:
				seen[i].back++
			}
		}
	})
	if errors.Is(err, unix.EPERM) {
		err = errors.New("it takes root to ask conntrack")
	}
	for i, n := range seen {
		name := h.Config.Doors[i].Name
		if n.forth > 0 && n.both == 0 {
			findings = append(findings, Finding{Severity: Warning, Door: name,
				Problem: fmt.Sprintf("Connections were accepted here and never answered (%d that conntrack remembers): either nothing answers behind the door, or answers take another way, and behind the wall such connections are dead.", n.forth),
				Cure:    "Route the answers through this host, too, or put the wall where both directions pass."})
		}
		if n.back > 0 {
			findings = append(findings, Finding{Severity: Error, Door: name,
				Problem: fmt.Sprintf("Of %d connections this host sees only what the service sends: what clients send takes another way, on which nobody has to knock.", n.back),
				Cure:    "Put the wall where both directions pass."})
		}
	}
	return findings, err
}
