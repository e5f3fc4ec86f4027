package ruleset

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Load and Review refuse a rule file, its folder, a key or a list that others can change.
func TestWhatOthersCanChangeIsRefused(t *testing.T) {
	const door = "door \"d\" {\n  ports = [22]\n"
	for name, test := range map[string]struct {
		mode  os.FileMode
		which string // of the files
	}{
		"a rule file of everybody":      {0o666, "rules/a.hcl"},
		"a rule file of a group":        {0o664, "rules/a.hcl"},
		"a folder of everybody":         {0o777, "rules"},
		"a folder that is sticky":       {0o777 | os.ModeSticky, "rules"},
		"a folder above":                {0o777, "."},
		"a key's folder":                {0o777, "keys"},
		"a list's folder":               {0o777, "lists"},
		"the folder where a link leads": {0o777, "elsewhere"},
		"":                              {0o755, "."},
	} {
		folder := t.TempDir()
		for file, text := range map[string]string{
			"rules/a.hcl":     door + "  rolling {\n    secret = file(\"" + folder + "/keys/key\")\n  }\n}\n",
			"rules/b.hcl":     "door \"l\" {\n  ports = [23]\n  one_time_sequences = \"" + folder + "/lists/list\"\n}\n",
			"keys/key":        "correct horse battery staple\n",
			"lists/list":      strings.Repeat("4113,27911,1840\n", 9),
			"elsewhere/c.hcl": "",
		} {
			path := filepath.Join(folder, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("../elsewhere/c.hcl", filepath.Join(folder, "rules/c.hcl")); err != nil {
			t.Fatal(err)
		}
		wrong := filepath.Join(folder, test.which)
		if err := os.Chmod(wrong, test.mode); err != nil {
			t.Fatal(err)
		}
		for _, load := range []func(string) *Loaded{Load, Review} {
			l := load(filepath.Join(folder, "rules"))
			text := said(t, l)
			if name == "" {
				if l.Config == nil {
					t.Errorf("nobody can change them: %s", text)
				}
				continue
			}
			if l.Config != nil || !strings.Contains(text, "chmod g") || !strings.Contains(text, wrong) {
				t.Errorf("%s: taken %t; %s", name, l.Config != nil, text)
			}
		}
	}
}
