//go:build linux && !client

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The client says of each command of hosts where it runs, and takes none for one of its own.
func TestTheClientSaysWhereCommandsOfHostsRun(t *testing.T) {
	client := filepath.Join(t.TempDir(), "knockwall")
	if out, err := exec.Command("go", "build", "-tags", "client", "-o", client, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the client: %v\n%s", err, out)
	}
	for _, c := range hostCommands() {
		for _, arguments := range [][]string{{c.Name()}, {c.Name(), "ssh", "192.0.2.7", "--window", "10m"}, {"help", c.Name()}} {
			cmd := exec.Command(client, arguments...)
			out, _ := cmd.CombinedOutput()
			if want := "knockwall: " + c.Name() + " runs on the host, and this is the client\n"; string(out) != want || cmd.ProcessState.ExitCode() != exitUsage {
				t.Errorf("%s: exit code %d, %q", strings.Join(arguments, " "), cmd.ProcessState.ExitCode(), out)
			}
		}
	}
	for _, arguments := range [][]string{{"ports", "--help"}, {"help", "ports"}, {"version"}, {"help"}, {}} {
		if out, err := exec.Command(client, arguments...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v, %s", arguments, err, out)
		}
	}
}
