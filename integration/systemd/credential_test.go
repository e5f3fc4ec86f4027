package systemd

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// credentialSecret is the secret of the machine below. It is unique, so that the test can
// search for it.
const credentialSecret = "wide-hatch-otter-plume"

// credentialUnit adds the credential to the unit.
const credentialUnit = "LoadCredential=vpn-open:/etc/knockwall.secrets/vpn-open"

// reporter is a command that describes its sandbox.
const reporter = `#!/bin/sh
echo "$*: $(id --user --name)"
grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status
touch /etc/written /home/written 2>&1
test -z "$CREDENTIALS_DIRECTORY" && echo "no credentials"
`

// Under systemd a secret is a credential that no other process sees. The next daemon
// remembers what was used. Commands run in the daemon's sandbox.
func TestCredentialsUnderSystemd(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "openssl")
	lab.NeedsProgram(t, "curl")
	l := lab.New(t)
	m := newPackaged(l, `door "vpn" {
  ports  = [22]
  window = "10m"
  otp {
    port        = "2000/udp"
    open_secret = credential("vpn-open")
    skew        = "1m"
  }
  on_open  { command = ["/usr/local/bin/reporter", "open for", "${source}"] }
  on_close { command = ["/usr/local/bin/reporter", "closed for", "${source}"] }
}`)
	m.addUsers()
	m.write("/usr/local/bin/reporter", reporter, 0o755)
	m.write("/etc/knockwall.secrets/vpn-open", credentialSecret+"\n", 0o600)
	lab.Must(t, os.Chmod(m.outside("/etc/knockwall.secrets"), 0o700))
	m.configure(credentialUnit)
	m.does("systemctl", "start", "knockwall.service")

	passwords := map[netip.Addr]string{}
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		source := lab.Source(1, server)
		passwords[server] = l.Password(credentialSecret, source, lab.Minute()) + "\n"
		if l.AdmitsAtOnce(source, server, 22) {
			t.Errorf("%s is admitted before the password", source)
		}
		if err := l.OnFirstSYNAfter(source, server, 22, func() error { return lab.SendData(source, server, 2000, passwords[server]) }); err != nil {
			t.Errorf("after the password: %v", err)
		}
		m.does("knockwall", "close", "vpn", source.String())
		for _, what := range []string{"on_open: exit code 0", "on_close: exit code 0"} {
			m.checkSandbox(what, source)
		}
	}

	replays := 0
	replay := func(when string) {
		t.Helper()
		replays++
		for server, password := range passwords {
			source := lab.Source(1, server)
			l.SendDatagram(source, server, 2000, password)
			m.eventually(when+", the journal has the replay", func() bool {
				return len(m.entries("KNOCKWALL_EVENT=replayed", "KNOCKWALL_SOURCE="+source.String())) == replays
			})
			if l.AdmitsAtOnce(source, server, 22) {
				t.Errorf("%s, a client that repeats a password is admitted", when)
			}
		}
	}
	replay("at once")
	m.does("systemctl", "restart", "knockwall.service")
	replay("after a restart")
	pid := m.property("MainPID")
	m.does("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "knockwall.service")
	m.eventually("another daemon runs", func() bool {
		now := m.property("MainPID")
		return now != pid && now != "0"
	})
	m.settled()
	replay("after a kill")

	for _, user := range []string{"root", "member"} {
		out, err := m.tellAs(user, "sh", "-c", "knockwall check 2>&1")
		if err != nil || !strings.Contains(out, "Secret not looked at") {
			t.Errorf("as %s, check says: %v\n%s", user, err, out)
		}
	}
	m.checkHidden(credentialSecret)
}

// checkSandbox fails the test if a command did not run in the service's sandbox.
func (m *machine) checkSandbox(what string, source netip.Addr) {
	m.t.Helper()
	var said string
	m.eventually("the journal says: "+what, func() bool {
		for _, e := range m.entries("KNOCKWALL_EVENT=command", "KNOCKWALL_SOURCE="+source.String()) {
			if strings.HasPrefix(e["KNOCKWALL_REASON"], what) {
				said = e["KNOCKWALL_REASON"]
			}
		}
		return said != ""
	})
	for _, w := range []string{
		" for " + source.String() + ": knockwall\n", "NoNewPrivs:\t1", "Seccomp:\t2", "no credentials",
		"'/etc/written': Read-only file system",
	} {
		if !strings.Contains(said, w) {
			m.t.Errorf("%s: the command does not say %q, but %q", what, w, said)
		}
	}
}

// checkHidden fails the test if a secret is visible anywhere.
func (m *machine) checkHidden(secret string) {
	m.t.Helper()
	pid := m.property("MainPID")
	m.does("journalctl", "--sync")
	for _, c := range []struct{ command, has string }{
		{"journalctl --output=export --all", "KNOCKWALL_EVENT=opened"},
		{"systemctl show knockwall.service", "STATE_DIRECTORY=/var/lib/knockwall"},
		{"systemctl status --full --lines=1000 knockwall.service", "knockwall run"},
		{"systemctl cat knockwall.service", "vpn-open"},
		{"tr '\\0' '\\n' </proc/" + pid + "/cmdline", "run"},
		{"tr '\\0' '\\n' </proc/" + pid + "/environ", "CREDENTIALS_DIRECTORY"},
		{"knockwall status; knockwall status --json", "otp"},
		{"knockwall events --json", "replayed"},
		{"knockwall ruleset 2>&1", "vpn_otp"},
		{"knockwall check 2>&1; knockwall check --json", "Secret not looked at"},
		{"curl --silent --unix-socket /run/knockwall/control.sock http://knockwall/metrics", "knockwall_"},
		{"cat /var/lib/knockwall/used", "otp vpn "},
		{"systemd-analyze --no-pager security knockwall.service", "knockwall"},
	} {
		out := m.does("sh", "-c", c.command)
		if !strings.Contains(out, c.has) {
			m.t.Errorf("%s does not say %q, so this proves nothing:\n%s", c.command, c.has, lab.Tail(out, 2000))
		}
		if strings.Contains(out, secret) {
			m.t.Errorf("%s shows the secret", c.command)
		}
	}
	if out, err := m.tellAs("member", "sh", "-c", "cat /run/credentials/knockwall.service/vpn-open /etc/knockwall.secrets/vpn-open"); err == nil || strings.Contains(out, secret) {
		m.t.Errorf("a user in the daemon's group can read the secret: %q, %v", out, err)
	}
}
