package terminal_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
)

// wrapped is a writer in front of another.
type wrapped struct{ io.Writer }

func (w wrapped) Unwrap() io.Writer { return w.Writer }

func TestWidthWithoutATerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, w := range map[string]io.Writer{"a buffer": new(strings.Builder), "a file": file, "a wrapped file": wrapped{file}} {
		if columns, is := terminal.Width(w); columns != terminal.DefaultWidth || is {
			t.Errorf("%s: %d columns, a terminal: %t", name, columns, is)
		}
	}
}

func TestDiagnosticsHaveNoColorsWithoutATerminal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, []byte("door \"ssh\" {\n  ports = [0]\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := terminal.WriteDiagnostics(&text, ruleset.Load(path)); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); !strings.Contains(got, "\nError: Not a port\n") || strings.Contains(got, "\x1b") {
		t.Errorf("written is\n%s", got)
	}
}
