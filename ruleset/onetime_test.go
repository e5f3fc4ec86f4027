package ruleset

import (
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
)

func TestListsOfSequencesAreLookedAt(t *testing.T) {
	const line = "4113,27911:udp,1840"
	for _, test := range []struct {
		name, text string
		mode       os.FileMode
		severity   hcl.DiagnosticSeverity // none: nothing is said
		want       string
	}{
		{"many", strings.Repeat(line+"\n", method.FewLeft+1), 0o600, hcl.DiagInvalid, ""},
		{"for the group, too", strings.Repeat(line+"\n", method.FewLeft+1), 0o660, hcl.DiagInvalid, ""},
		{"few", strings.Repeat(line+"\n", method.FewLeft), 0o600, hcl.DiagWarning, "Unused sequences: 3."},
		{"one, and used ones", "#" + line + "\n" + line + "\n#" + line, 0o600, hcl.DiagWarning, "Unused sequences: 1."},
		{"none", "", 0o600, hcl.DiagWarning, "All sequences are used"},
		{"used ones", "# list\n#" + line + "\n\n", 0o600, hcl.DiagWarning, "All sequences are used"},
		{"a line that is none", line + "\n\n4113,many\n" + line + "\n", 0o600, hcl.DiagError, "list line 3: this is not a sequence"},
		{"too many knocks", strings.Repeat("1,", 32) + "2\n", 0o600, hcl.DiagError, "list line 1: a sequence has at most 32 knocks, and this one has 33"},
		{"for others to read", line, 0o604, hcl.DiagError, "chmod o="},
		{"for others to write", line, 0o602, hcl.DiagError, "chmod o="},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := list(t, test.text)
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			rules := write(t, "door \"d\" {\nports = [22]\none_time_sequences = \""+path+"\"\n}\n")
			for name, load := range map[string]func(string) *Loaded{"Load": Load, "Review": Review} {
				l := load(rules)
				text := said(t, l)
				if (l.Config == nil) != (test.severity == hcl.DiagError) {
					t.Errorf("%s: taken %t: %s", name, l.Config != nil, text)
				}
				if test.severity == hcl.DiagInvalid {
					if len(l.Diagnostics) != 0 {
						t.Errorf("%s: %s", name, text)
					}
					continue
				}
				if len(l.Diagnostics) != 1 || l.Diagnostics[0].Severity != test.severity || !strings.Contains(text, test.want) {
					t.Errorf("%s: want %q, got %s", name, test.want, text)
				}
				if at := l.Diagnostics[0].Subject; at == nil || at.Start.Line != 3 {
					t.Errorf("%s: it is told of %v", name, at)
				}
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != test.text {
				t.Errorf("the list was changed: %q, %v", after, err)
			}
		})
	}
}

func TestAListThatCannotBeCrossedOutIsRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root writes every file: needs a user that is not root")
	}
	path := list(t, "1,2,3")
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	l := Load(write(t, "door \"d\" {\nports = [22]\none_time_sequences = \""+path+"\"\n}\n"))
	if text := said(t, l); l.Config != nil || !strings.Contains(text, "mark used sequences") || !strings.Contains(text, "permission denied") {
		t.Errorf("got %s", text)
	}
}
