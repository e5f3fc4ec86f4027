package systemd

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// The companion of the package runs in its sandbox: it reads the rule files and its key, uses
// the control socket and reaches the server. systemd rates the sandbox.
func TestShareUnderSystemd(t *testing.T) {
	t.Parallel()
	const name = "knockwall-share.service"
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m")+`
share {
  group   = "prod"
  name    = "a"
  servers = ["nats://127.0.0.1:4222"]
}
`)
	program, err := exec.Command("cat", lab.NeedsProgram(t, "knockwall-share")).Output()
	lab.Must(t, err)
	m.write("/usr/libexec/knockwall/knockwall-share", string(program), 0o755)
	server := exec.Command(lab.NeedsProgram(t, "nats-server"), "-a", "127.0.0.1", "-DV")
	said := &lab.Output{}
	server.Stderr = said
	lab.Must(t, lab.StartOn(l.Server, server))
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })

	m.does("systemctl", "start", "knockwall.service", name)
	eventually.True(t, "the companion is connected", func() bool {
		return strings.Contains(m.synced("--unit", name, "--output", "cat"), "connected to the NATS server")
	})
	guest := lab.Source(10, lab.Server4)
	l.Enter(guest, lab.Server4).Close()
	eventually.True(t, "the companion publishes the window", func() bool {
		return strings.Contains(said.String(), "PUB knockwall.prod.a.") && strings.Contains(said.String(), guest.String())
	})

	judged := m.does("systemd-analyze", "security", "--no-pager", name)
	figure := regexp.MustCompile(`Overall exposure level for knockwall-share\.service: ([0-9.]+)`).FindStringSubmatch(judged)
	if figure == nil {
		t.Fatalf("there is no figure in:\n%s", judged)
	}
	if exposure, err := strconv.ParseFloat(figure[1], 64); err != nil || exposure > 2 {
		t.Errorf("the exposure of the unit is %s, want 2 at most", figure[1])
	}
	t.Logf("the exposure of the unit is %s", figure[1])
	verified := m.does("sh", "-c", "systemd-analyze verify --man=no "+name+" 2>&1 || echo knockwall-share fails")
	for line := range strings.Lines(verified) {
		if strings.Contains(line, "knockwall-share") {
			t.Errorf("systemd-analyze verify says: %s", line)
		}
	}
	owner := strings.TrimSpace(m.does("sh", "-c", "ps -o user:32= -p $(systemctl show --value --property MainPID "+name+")"))
	if owner == "root" || owner == "knockwall" || owner == "" {
		t.Errorf("the companion runs as %q, want a user of its own", owner)
	}

	// Without a share block it says so once, and is not restarted.
	m.does("systemctl", "stop", name)
	m.rules(lab.RulesWith("", "10m"))
	m.does("systemctl", "start", name)
	eventually.True(t, "the companion has failed", func() bool {
		state, _ := m.tell("systemctl", "is-failed", name)
		return strings.TrimSpace(state) == "failed"
	})
	if told := m.synced("--unit", name, "--output", "cat"); strings.Count(told, "has no share block") != 1 {
		t.Errorf("without a share block: %s", told)
	}
}
