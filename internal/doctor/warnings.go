package doctor

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/ruleset"
)

// Warnings returns the findings as warnings about the rule files. They are no errors, as
// the files may be for another host.
func (r Report) Warnings() *ruleset.Loaded {
	l := &ruleset.Loaded{}
	for _, f := range r.Findings {
		what := "This host"
		switch {
		case f.Bare:
			what = fmt.Sprintf("The door %q guards nothing on this host", f.Door)
		case f.Door != "":
			what = fmt.Sprintf("The door %q, on this host", f.Door)
		}
		l.Diagnostics = append(l.Diagnostics, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: what, Detail: f.Problem + " " + f.Cure})
	}
	return l
}
