//go:build linux

package daemon

import (
	"fmt"

	"github.com/knockwall/knockwall/internal/doctor"
)

// examine reports whether the rule files differ from those in force, and returns the
// findings about them.
func (r *rules) examine() (differ bool, findings []doctor.Finding) {
	r.mu.Lock()
	now, degraded := r.inForce, r.degraded
	onTrial := r.onTrial
	r.mu.Unlock()
	if onTrial != nil && r.wall.OnTrial() {
		now = onTrial
	}
	if degraded != "" && now != onTrial {
		findings = append(findings, doctor.Finding{Check: "rules", Severity: doctor.Error,
			Problem: fmt.Sprintf("The rule files could not be used when the daemon started, so the last rules that were in force are in force: %s.", degraded),
			Cure:    "Correct the errors that `knockwall check` shows, then type `knockwall reload`."})
	}
	differ, err := now.Differs()
	if err != nil {
		findings = append(findings, doctor.Finding{Check: "rules", Severity: doctor.Warning,
			Problem: fmt.Sprintf("The daemon cannot read its rule files: %v.", err),
			Cure:    "Let the daemon's user read them, as `knockwall check` says. Otherwise the next start uses the kept rules."})
	}
	return differ, findings
}
