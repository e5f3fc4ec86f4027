package doctor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/sessions"
)

// findAnswers finds doors for which this host sees only one direction of the connections:
// the client's packets without answers, or the service's packets without the client's,
// which then pass the wall by another route. It reads conntrack.
func findAnswers(h *Host) (findings []Finding, err error) {
	seen := make([]struct{ both, forth, back int }, len(h.Config.Doors))
	err = sessions.Directions(func(s sessions.Session, direction sessions.Seen) {
		for i := range h.Config.Doors {
			d := &h.Config.Doors[i]
			if !d.Guards(s.Port) || !d.GuardsAt(s.Local, s.Here) {
				continue
			}
			switch direction {
			case sessions.Both, sessions.Over:
				seen[i].both++
			case sessions.ToService:
				seen[i].forth++
			case sessions.FromService:
				seen[i].back++
			}
		}
	})
	if errors.Is(err, unix.EPERM) {
		err = notPermitted("reading conntrack", err)
	}
	for i, n := range seen {
		name := h.Config.Doors[i].Name
		if n.forth > 0 && n.both == 0 {
			findings = append(findings, Finding{Severity: Warning, Door: name,
				Problem: fmt.Sprintf("Connections were accepted here and never answered (%d in conntrack). Either no service answers, or its answers take a route that does not pass this host. The wall then drops such connections after their first packet.", n.forth),
				Cure:    "Route the answers through this host as well, or run knockwall on a host that both directions pass."})
		}
		if n.back > 0 {
			findings = append(findings, Finding{Severity: Error, Door: name,
				Problem: fmt.Sprintf("For %d connections this host sees only what the service sends. The clients' packets take another route, on which no knock is needed.", n.back),
				Cure:    "Run knockwall on a host that both directions pass."})
		}
	}
	return findings, err
}
