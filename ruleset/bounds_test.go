package ruleset

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Load reads a limited amount, however many large files there are.
func TestLargeFoldersAreBounded(t *testing.T) {
	folder := t.TempDir()
	large := strings.Repeat("# nothing at all\n", maxFileSize/17)
	for i := range 2 * maxAllSizes / maxFileSize {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%04d.hcl", i)), []byte(large), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := Load(folder)
	if text := said(t, l); l.Config != nil || !strings.Contains(text, "The rule files have more than 2 MiB in total") {
		t.Errorf("taken %t; %.1000s", l.Config != nil, text)
	}
	if l.size > maxAllSizes+maxFileSize {
		t.Errorf("%d bytes were read", l.size)
	}
}

// File names in diagnostics have no terminal control sequences.
func TestNamesArePrintedPrintable(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"\x1b[31ma.hcl":   "door \"d\" {\nports = [22\n}\n",
		"\x1b[31mb.hcl":   "door \"\x1b[31m\" {}\ndoor \"\x1b[31m\" {}\n",
		"\x1b[31mc.hcl":   strings.Repeat("\n", maxFileSize+1),
		"\x1b]0;x\ad.hcl": "wall {}\nwall {}\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "\x1b[31me.hcl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if text := diagnosticText(t, Load(folder)); strings.ContainsAny(text, "\x1b\a") || strings.Count(text, "[31m") < 5 {
		t.Errorf("it is said:\n%q", text)
	}
}
