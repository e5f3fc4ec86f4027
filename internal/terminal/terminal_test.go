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
	t.Setenv("COLUMNS", "")
	for name, w := range map[string]io.Writer{"a buffer": new(strings.Builder), "a file": file, "a wrapped file": wrapped{file}} {
		if columns, is := terminal.Width(w); columns != terminal.DefaultWidth || is {
			t.Errorf("%s: %d columns, a terminal: %t", name, columns, is)
		}
	}
}

// COLUMNS can ask for fewer columns, and for no nonsense.
func TestColumnsOfTheEnvironment(t *testing.T) {
	for set, want := range map[string]uint{
		"60": 60, "40": 40, "7": 40, "200": terminal.DefaultWidth,
		"": terminal.DefaultWidth, "0": terminal.DefaultWidth, "-60": terminal.DefaultWidth, "wide": terminal.DefaultWidth,
	} {
		t.Setenv("COLUMNS", set)
		if got, _ := terminal.Width(new(strings.Builder)); got != want {
			t.Errorf("COLUMNS=%s: %d columns, want %d", set, got, want)
		}
	}
}

// The first of the three variables that is set names the locale.
func TestIsUTF8(t *testing.T) {
	for _, test := range []struct {
		all, ctype, lang string
		want             bool
	}{
		{"", "", "", false},
		{"", "", "C", false},
		{"", "", "C.UTF-8", true},
		{"", "", "de_DE.utf8@euro", true},
		{"", "de_DE.ISO-8859-1", "C.UTF-8", false},
		{"", "en_US.UTF-8", "C", true},
		{"C", "en_US.UTF-8", "en_US.UTF-8", false},
		{"POSIX", "", "", false},
	} {
		t.Setenv("LC_ALL", test.all)
		t.Setenv("LC_CTYPE", test.ctype)
		t.Setenv("LANG", test.lang)
		if got := terminal.IsUTF8(); got != test.want {
			t.Errorf("%+v: %t", test, got)
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
