//go:build linux

package takedown

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/control"
)

// root's down stops the units of knockwall, and no other that a daemon names.
func TestDownStopsNoOtherUnitThanOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root stops units")
	}
	for _, test := range []struct {
		unit, path string
		stops      bool
	}{
		{"knockwall.socket", control.DefaultPath, true},
		{"ssh.socket", control.DefaultPath, false},
		{"knockwall.socket", "/tmp/another", false},
		{"--help", control.DefaultPath, false},
	} {
		folder := t.TempDir()
		stopped := filepath.Join(folder, "stopped")
		script := "#!/bin/sh\necho \"$@\" >>" + stopped + "\n"
		if err := os.WriteFile(filepath.Join(folder, "systemctl"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", folder)
		var out strings.Builder
		if err := (&takedown{out: &out, path: test.path}).stopUnits(test.unit); err != nil {
			t.Errorf("%s: %v", test.unit, err)
		}
		said, err := os.ReadFile(stopped)
		if want := "stop knockwall.socket knockwall.service\n"; test.stops && string(said) != want || !test.stops && err == nil {
			t.Errorf("%s, of the daemon at %s: systemctl %q", test.unit, test.path, said)
		}
		if !test.stops && !strings.Contains(out.String(), "sudo systemctl stop") {
			t.Errorf("%s: it does not say how to stop it: %s", test.unit, &out)
		}
	}
}
