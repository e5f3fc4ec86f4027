//go:build linux && !client

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDownWhereNoWallStands(t *testing.T) {
	program, err := exec.LookPath("knockwall")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "down", "--control", filepath.Join(t.TempDir(), "none.sock"))
	isolated(cmd)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		lacks(t, "needs a network of its own: %v", err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "No wall stands.\n" || errs.Len() > 0 {
		t.Errorf("%v, stdout %q, stderr %q", err, out.String(), errs.String())
	}
}
