package systemd

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
)

// The daemon has the permissions that it needs and no others, by systemd's own rating of
// the unit and by what the kernel shows of the process. In that sandbox everything works.
func TestSandboxUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	m := newPackaged(l, lab.RulesWith("", "10m"))
	m.addUsers()
	m.does("systemctl", "start", "knockwall.service")

	judged := m.does("systemd-analyze", "security", "--no-pager", "knockwall.service")
	figure := regexp.MustCompile(`Overall exposure level for knockwall\.service: ([0-9.]+)`).FindStringSubmatch(judged)
	if figure == nil {
		t.Fatalf("there is no figure in:\n%s", judged)
	}
	if exposure, err := strconv.ParseFloat(figure[1], 64); err != nil || exposure > 1.5 {
		t.Errorf("the exposure of the unit is %s, want 1.5 at most", figure[1])
	}
	t.Logf("the exposure of the unit is %s", figure[1])

	verified := m.does("sh", "-c", "systemd-analyze verify --man=no knockwall.service knockwall.socket 2>&1 || echo knockwall fails")
	for line := range strings.Lines(verified) {
		if strings.Contains(line, "knockwall") {
			t.Errorf("systemd-analyze verify says: %s", line)
		}
	}

	// A filesystem that the service needs may wait for the network, and the network waits
	// for the service.
	if mounts := m.property("RequiresMountsFor"); mounts != "/run/knockwall" {
		t.Errorf("the service waits for these mounts: %s", mounts)
	}

	const netAdmin = "0000000000001000"
	status, err := os.ReadFile(m.outside("/proc/" + m.property("MainPID") + "/status"))
	lab.Must(t, err)
	user := strings.TrimSpace(m.does("id", "--user", "knockwall"))
	for name, want := range map[string]string{
		"CapPrm": netAdmin, "CapEff": netAdmin, "CapBnd": netAdmin, "CapAmb": netAdmin,
		"NoNewPrivs": "1", "Seccomp": "2", "Uid": strings.Join([]string{user, user, user, user}, "\t"),
	} {
		field := regexp.MustCompile(`(?m)^` + name + `:\t(.*)$`).FindSubmatch(status)
		if field == nil || string(bytes.TrimSpace(field[1])) != want {
			t.Errorf("the daemon's %s is %q, want %q", name, field, want)
		}
	}
	if user == "0" {
		t.Error("the daemon is root")
	}

	checkGuards(l, "in the sandbox", 1)
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		guest := lab.Source(10, server)
		session := l.Enter(guest, server)
		m.does("knockwall", "close", "ssh", guest.String(), "--sessions")
		session.SetDeadline(time.Now().Add(lab.Deadline))
		if _, err := session.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("the session from %s has not ended: %v", guest, err)
		}
	}
	lab.NeedsProgram(t, "curl")
	out, err := m.tellAs("member", "curl", "--silent", "--show-error", "--unix-socket", "/run/knockwall/control.sock", "http://knockwall/metrics")
	if want := `knockwall_windows_total{door="ssh",event="opened"} 4`; err != nil || !strings.Contains(out, want) {
		t.Errorf("the metrics do not have %q: %v\n%s", want, err, out)
	}
}
