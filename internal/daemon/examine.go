//go:build linux

package daemon

import (
	"fmt"
	"strings"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/wall"
)

// examine reports whether the rule files differ from those in force, when they were last
// put in force or on trial, and the findings about them.
func (r *rules) examine() wall.RuleFiles {
	r.mu.Lock()
	now, degraded := r.inForce, r.degraded
	onTrial := r.onTrial
	files := wall.RuleFiles{Failed: r.failed, InForce: r.usedAt}
	r.mu.Unlock()
	if onTrial != nil && r.wall.OnTrial() {
		now = onTrial
	}
	if degraded != "" && now != onTrial {
		problem := "The rule files could not be used when the daemon started, so the last rules that were in force are in force: " + degraded
		if !strings.HasSuffix(problem, "?") { // HCL asks: Did you mean …?
			problem += "."
		}
		files.Findings = append(files.Findings, doctor.Finding{Check: wall.RulesCheck, Severity: doctor.Error,
			Problem: problem,
			Cure:    fmt.Sprintf("Correct the errors that `knockwall check` shows, then type `%s`.", control.Command(r.control, "reload"))})
	}
	if since, are := r.unconfirmedSince(); are && !r.wall.OnTrial() {
		files.Unconfirmed = &wall.UnconfirmedFiles{Since: since, Boot: r.afterBoot() == control.Files}
	}
	var err error
	if files.Differ, err = now.Differs(); err != nil {
		files.Findings = append(files.Findings, doctor.Finding{Check: wall.RulesCheck, Severity: doctor.Warning,
			Problem: fmt.Sprintf("The daemon cannot read its rule files: %v.", err),
			Cure:    "Let the daemon's user read them, as `knockwall check` says. Otherwise the next start uses the kept rules."})
	}
	return files
}
