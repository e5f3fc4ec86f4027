//go:build unix

package ruleset

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Reading a pipe that nobody writes to would never end.
func TestAPipeInAFolderIsNotRead(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "x.hcl")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	l := Load(folder)
	text := strings.Join(strings.Fields(diagnosticText(t, l)), " ")
	if l.Config != nil || !strings.Contains(text, path+" is not a regular file") {
		t.Errorf("got:\n%s", text)
	}
}
