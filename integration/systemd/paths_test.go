package systemd

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// By the units of the package, a knock runs a script as root, outside of the daemon's
// sandbox, and starts and stops another unit, however often.
func TestKnocksStartUnitsUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, `door "backup" {
  sequence = [21964, 6532, 28417]
  window   = "1m"
  on_open { command = ["touch", "/run/knockwall/run-backup"] }
}
door "wiki" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  on_open  { command = ["touch", "/run/knockwall/start-wiki"] }
  on_close { command = ["touch", "/run/knockwall/stop-wiki"] }
}`)
	m.write("/usr/local/sbin/backup", "#!/bin/sh\nid --user >>/root/backups\n", 0o755)
	m.write(machineUnits+"wiki.service", "[Service]\nExecStart=sleep infinity\n", 0o644)
	paths := []string{"knockwall-run@backup.path", "knockwall-start@wiki.path", "knockwall-stop@wiki.path"}
	m.does("systemctl", "daemon-reload")
	units := strings.Join(paths, " ")
	units += " " + strings.ReplaceAll(units, ".path", ".service")
	verified := m.does("sh", "-c", "systemd-analyze verify --man=no "+units+" 2>&1 || echo knockwall- fails")
	for line := range strings.Lines(verified) {
		if strings.Contains(line, "knockwall-") {
			t.Errorf("systemd-analyze verify says: %s", line)
		}
	}
	m.does("systemctl", append([]string{"enable", "--now"}, paths...)...)
	m.does("systemctl", "start", "knockwall.service")

	client := lab.Source(1, lab.Server4)
	for n := range 2 {
		l.Knock(lab.Source(n+1, lab.Server4), lab.Server4, lab.TCP(21964), lab.TCP(6532), lab.TCP(28417))
		m.eventually(fmt.Sprintf("the script has run %d times, as root", n+1), func() bool {
			text, _ := os.ReadFile(m.outside("/root/backups"))
			return string(text) == strings.Repeat("0\n", n+1)
		})
		m.becomes("knockwall-run@backup.service", "inactive")

		l.Knock(client, lab.Server4, lab.Knocks...)
		m.becomes("wiki.service", "active")
		m.becomes("knockwall-start@wiki.service", "inactive")
		m.does("knockwall", "close", "wiki", client.String())
		m.becomes("wiki.service", "inactive")
		m.becomes("knockwall-stop@wiki.service", "inactive")
	}
	// systemd's default limit is five starts in ten seconds. With it a path unit ends.
	m.does("sh", "-ec", "for n in 1 2 3 4 5 6 7 8; do systemctl start knockwall-run@backup.service; done")
	for _, p := range paths {
		m.becomes(p, "active")
	}
}

// becomes waits until a unit is in a state.
func (m *machine) becomes(unit, state string) {
	m.t.Helper()
	m.eventually(unit+" is "+state, func() bool {
		now, _ := m.tell("systemctl", "is-active", unit) // it fails unless the unit is active
		return now == state+"\n"
	})
}
