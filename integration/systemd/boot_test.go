package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// At boot the wall is in force before any network is configured.
func TestBootOrderUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lab.NeedsProgram(t, "nft")
	files := filepath.Join(l.Folder, "files")
	packaged(t, files)
	lab.WriteFile(t, files+ruleFile, lab.RulesWith("", "10m"), 0o644)
	enable := lab.NeedsProgram(t, "systemctl")
	lab.Must(t, runQuietly(enable, "--root="+files, "enable", "knockwall.service"))
	for _, link := range []string{"multi-user.target.wants/knockwall.service", "sockets.target.wants/knockwall.socket"} {
		if _, err := os.Readlink(files + machineUnits + link); err != nil {
			t.Errorf("what is enabled: %v", err)
		}
	}
	// The probe stands in for the programs that configure networks: see
	// systemd.special(7).
	lab.WriteFile(t, files+machineUnits+"probe.service", `[Unit]
DefaultDependencies=no
After=local-fs.target network-pre.target
Wants=network-pre.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'nft list tables >/run/probe'
`, 0o644)
	lab.WriteFile(t, files+machineUnits+"machine.target.d/boot.conf", "[Unit]\nWants=multi-user.target network.target probe.service\nAfter=multi-user.target\n", 0o644)
	l.ServeTCP(22)
	for n := range rounds() {
		m := boot(l, files)
		probe, err := os.ReadFile(m.outside("/run/probe"))
		lab.Must(t, err)
		if string(probe) != "table inet knockwall\n" {
			t.Errorf("boot %d: when networks are configured, the tables are %q", n, probe)
		}
		if states := m.states(); states != "active active" {
			t.Errorf("boot %d: socket and service are %s:\n%s", n, states, m.does("journalctl", "--no-pager", "--lines=30", "--unit=knockwall"))
		}
		if failed := m.does("systemctl", "--failed", "--plain", "--no-legend"); strings.Contains(failed, "knockwall") {
			t.Errorf("boot %d: %s", n, failed)
		}
		checkGuards(l, "after the boot", 10*n+1)
		m.does("knockwall", "down") // for the next machine on the same network
		m.end()
	}
}

// boot starts a machine. If systemd could not make the service's mount namespace, it
// starts another one: systemd 252, on an overlay and a busy machine, sometimes finds no
// /dev in it and gives up. That is not what this tests.
func boot(l *lab.Lab, files string) *machine {
	l.T.Helper()
	for range 9 {
		m := newMachineWith(l, files)
		said := m.does("journalctl", "--no-pager", "--unit=knockwall")
		if !strings.Contains(said, "Failed to set up mount namespacing: /run/systemd/unit-root/dev:") {
			return m
		}
		l.T.Logf("systemd could not start the service:\n%s", said)
		m.does("knockwall", "down")
		m.end()
	}
	return newMachineWith(l, files)
}
