//go:build linux

package command_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/knockwall/knockwall/internal/command"
)

// Exists finds a program by its path or by its name.
func TestExistsIsForProgramsThatCanBeRun(t *testing.T) {
	folder := t.TempDir()
	text := filepath.Join(folder, "text")
	if err := os.WriteFile(text, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, "program")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder, "link")
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"sh": true, "/bin/sh": true, program: true, link: true,
		text: false, folder: false, folder + "/none": false, "knockwall-no-such-program": false, "": false, "bin/sh": false,
	} {
		if got := command.Exists(name); got != want {
			t.Errorf("%q exists: %t", name, got)
		}
	}
}
