package clients

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// The knocks of knockd's client, of knockwall and of nmap each open the door.
func TestClientsThatKnock(t *testing.T) {
	t.Parallel()
	knock, nmap := lab.NeedsProgram(t, "knock"), lab.NeedsProgram(t, "nmap")
	ours := lab.BinaryPath()
	for family, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
		version := "-4"
		if to.Is6() {
			version = "-6"
		}
		for name, commands := range map[string][][]string{
			"knock":               {{knock, version, to.String(), "4113", "27911:udp", "1840:tcp"}},
			"knock with a delay":  {{knock, version, "-d", "100", "-v", to.String(), "4113", "27911:udp", "1840"}},
			"ours":                {{ours, "knock", version, to.String(), "4113", "27911/udp", "1840"}},
			"ours, as knockd's":   {{ours, "knock", version, "-v", "-d", "50", to.String(), "4113:tcp", "27911:udp", "1840"}},
			"ours by UDP, if not": {{ours, "knock", "-u", to.String(), "4113/tcp", "27911", "1840/tcp"}},
			"nmap": {
				{nmap, "-n", "-Pn", version, "--max-retries", "0", "-sS", "-p", "4113", to.String()},
				{nmap, "-n", "-Pn", version, "--max-retries", "0", "-sU", "-p", "27911", to.String()},
				{nmap, "-n", "-Pn", version, "--max-retries", "0", "-sT", "-p", "1840", to.String()},
			},
		} {
			t.Run(name+", "+family, func(t *testing.T) {
				t.Parallel()
				l := lab.New(t)
				l.ServeTCP(22)
				// On a busy machine nmap needs a long time.
				d := l.Run(`door "ssh" {
  ports       = [22]
  sequence    = [4113, "27911/udp", 1840]
  seq_timeout = "2m"
}`)
				for _, c := range commands {
					if c[0] == nmap && version == "-4" {
						c = append([]string{nmap, "-n", "-Pn"}, c[4:]...) // nmap has no -4
					}
					if out, err := l.RunOnClient(c[0], c[1:]...); err != nil {
						t.Fatalf("%s: %v\n%s", strings.Join(c, " "), err, out)
					}
				}
				d.WaitFor("opened", "door=ssh")
				from := lab.Client4
				if to.Is6() {
					from = lab.Client6
				}
				if !l.Admits(from, to, 22) {
					t.Error("refused after the knocks")
				}
			})
		}
	}
}

// A wrong knock at the name of a host with IPv6 and IPv4 is held against the client's address of
// one version only: from the other, the right knocks open at once.
func TestAWrongKnockAtANameTrapsOneVersionOfIP(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t, "the client has an /etc/hosts of its own")
	l := lab.New(t)
	l.ServeTCP(22)
	client := newHome(t, l.Client, l.Folder, "client")
	lab.WriteFile(t, client.path("etc/hosts"), fmt.Sprintf("%s both.example\n%s both.example\n", lab.Server4, lab.Server6), 0o644)
	d := l.Run(`door "ssh" {
  ports       = [22]
  sequence    = [4113, "27911/udp", 1840]
  seq_timeout = "2m"
  penalty     = "1h"
}`)
	client.run("knockwall knock both.example 4113 27911/udp 1841")
	var other string
	eventually.True(t, "the wrong knock is heard", func() bool {
		heard4, heard6 := d.Logged("source="+lab.Client4.String()) > 0, d.Logged("source="+lab.Client6.String()) > 0
		switch {
		case heard4 && heard6:
			t.Fatal("both versions of IP were knocked at")
		case heard4:
			other = "-6"
		case heard6:
			other = "-4"
		}
		return heard4 || heard6
	})
	// These come after all that the wrong knock sent.
	client.run("knockwall knock " + other + " both.example 4113 27911/udp 1840")
	d.WaitFor("opened", "door=ssh")
	from, to := lab.Client4, lab.Server4
	if other == "-6" {
		from, to = lab.Client6, lab.Server6
	}
	if !l.Admits(from, to, 22) {
		t.Error("refused after the right knocks")
	}
}

// ssh connects with connect as its ProxyCommand, in one command. The session outlives its
// window.
func TestSSHThroughConnect(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t, "sshd switches users, and a user namespace of one's own has one")
	sshd, ssh, keygen := lab.NeedsProgram(t, "sshd"), lab.NeedsProgram(t, "ssh"), lab.NeedsProgram(t, "ssh-keygen")
	l := lab.New(t)
	file := func(name string) string { return filepath.Join(l.Folder, name) }
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", file(key)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(file("user.pub"))
	lab.Must(t, err)
	lab.Must(t, os.WriteFile(file("authorized"), public, 0o600))
	lab.Must(t, os.WriteFile(file("sshd_config"), fmt.Appendf(nil,
		"Port 22\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n",
		file("host"), file("authorized")), 0o600))
	_ = os.MkdirAll("/run/sshd", 0o755) // Debian's sshd needs it
	server := exec.Command(sshd, "-D", "-e", "-f", file("sshd_config"))
	serverLog := &lab.Output{}
	server.Stderr = serverLog
	lab.Must(t, lab.StartOn(l.Server, server))
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	eventually.True(t, "sshd listens", func() bool { return strings.Contains(serverLog.String(), "Server listening") })

	d := l.Run(`door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "1s"
}`)
	proxy := lab.BinaryPath() + " connect %h %p 4113 27911/udp 1840"
	options := []string{"-F", "none", "-i", file("user"), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}
	for _, to := range []netip.Addr{lab.Server4, lab.Server6} {
		target := "root@" + to.String()
		if out, err := l.RunOnClient(ssh, append(options, "-o", "ConnectTimeout=1", target, "true")...); err == nil {
			t.Errorf("%s: ssh gets in without knocking: %s", to, out)
		}
		out, err := l.RunOnClient(ssh, append(options, "-o", "ProxyCommand="+proxy, target, "echo in; sleep 1.5; echo still in")...)
		if err != nil || out != "in\nstill in\n" {
			t.Errorf("%s: ssh says %q, %v\nsshd says %s", to, out, err, serverLog)
		}
	}
	d.WaitFor("expired")
}

// connect to a door that stays shut ends with an error that says so.
func TestConnectThatFails(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	l.ServeTCP(22)
	l.Run(lab.SSHRules)
	start := time.Now()
	out, err := l.RunOnClient(lab.BinaryPath(), "connect", "--timeout", "300ms", lab.Server4.String(), "22", "1", "2", "3")
	if err == nil || !strings.Contains(out, "after the knocks") {
		t.Errorf("connect with the wrong knocks: %v, %q", err, out)
	}
	if took := time.Since(start); took > lab.Deadline/2 {
		t.Errorf("it took %s to give up", took)
	}
}

// The demo is the first thing that a new user sees, so it must work, and print what the README
// shows of it.
func TestDemo(t *testing.T) {
	t.Parallel()
	cmd := lab.Knockwall("demo")
	cmd.Env = append(os.Environ(), "KNOCKWALL_NETLAB=") // the demo makes its own network
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	readme, err := os.ReadFile("../../README.md")
	lab.Must(t, err)
	number := regexp.MustCompile(`\d+\.\d+`) // a time
	shown := regexp.MustCompile(`(?m)^     ?(\d+\.\d{3}s  .*)$`).FindAllSubmatch(readme, -1)
	if len(shown) < 5 {
		t.Errorf("the README shows only %d lines of the demo", len(shown))
	}
	for _, m := range shown {
		if line := number.ReplaceAllString(string(m[1]), "N"); !strings.Contains(number.ReplaceAllString(string(out), "N"), line) {
			t.Errorf("%q of the README is not in\n%s", line, out)
		}
	}
	for _, line := range []string{"A stranger connects", "No answer", "let in on its first SYN", "refused", "expired", "still here"} {
		if !strings.Contains(string(out), line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
}
