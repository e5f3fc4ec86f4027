//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

func prefixes(all ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range all {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func guarding(name string, first, last uint16, change ...func(*ruleset.Door)) ruleset.Door {
	d := ruleset.Door{Name: name, Ports: []packet.PortRange{{First: first, Last: last, Protocol: packet.TCP}}}
	for _, c := range change {
		c(&d)
	}
	return d
}

func TestWhoWouldBeLockedOutIsWarned(t *testing.T) {
	const v4, v6 = "198.51.100.7 50000 192.0.2.1 22", "2001:db8::7 50000 2001:db8::1 22"
	at := func(to ...string) func(*ruleset.Door) { return func(d *ruleset.Door) { d.To = prefixes(to...) } }
	trusting := func(who ...string) func(*ruleset.Door) {
		return func(d *ruleset.Door) { d.Trusted = prefixes(who...) }
	}
	udp := func(d *ruleset.Door) { d.Ports[0].Protocol = packet.UDP }
	for _, test := range []struct {
		name    string
		session string
		trusted []netip.Prefix // by the wall
		doors   []ruleset.Door
		warned  bool
	}{
		{"the port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 22, 22)}, true},
		{"a range with the port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 1, 1023)}, true},
		{"the first port of a range", v4, nil, []ruleset.Door{guarding("ssh", 22, 23)}, true},
		{"over IPv6", v6, nil, []ruleset.Door{guarding("ssh", 22, 22)}, true},
		{"another port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 23, 1023)}, false},
		{"the client's port is guarded", v4, nil, []ruleset.Door{guarding("ssh", 50000, 50000)}, false},
		{"the port is guarded for UDP", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, udp)}, false},
		{"there is no door", v4, nil, nil, false},
		{"the door is at this address", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, at("203.0.113.0/24", "192.0.2.1/32"))}, true},
		{"the door is at another address", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, at("203.0.113.0/24", "198.51.100.7/32"))}, false},
		{"the door is at IPv4 addresses", v6, nil, []ruleset.Door{guarding("ssh", 22, 22, at("0.0.0.0/0"))}, false},
		{"an address in IPv6 clothes", "::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", nil,
			[]ruleset.Door{guarding("ssh", 22, 22, at("192.0.2.1/32"))}, true},
		{"a client in IPv6 clothes is trusted", "::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", prefixes("198.51.100.0/24"),
			[]ruleset.Door{guarding("ssh", 22, 22)}, false},
		{"a zone", "fe80::7%eth0 50000 fe80::1%eth0 22", nil, []ruleset.Door{guarding("ssh", 22, 22, at("fe80::/64"))}, true},
		{"a client with a zone is trusted", "fe80::7%eth0 50000 fe80::1%eth0 22", nil,
			[]ruleset.Door{guarding("ssh", 22, 22, trusting("fe80::/64"))}, false},
		{"the wall trusts the client", v4, prefixes("198.51.100.7/32"), []ruleset.Door{guarding("ssh", 22, 22)}, false},
		{"the wall trusts the client's network", v6, prefixes("10.0.0.0/8", "2001:db8::/32"), []ruleset.Door{guarding("ssh", 22, 22)}, false},
		{"the wall trusts somebody else", v4, prefixes("198.51.100.8/32", "192.0.2.1/32"), []ruleset.Door{guarding("ssh", 22, 22)}, true},
		{"the door trusts the client", v4, nil, []ruleset.Door{guarding("ssh", 22, 22, trusting("198.51.100.0/24"))}, false},
		{"another door trusts the client", v4, nil,
			[]ruleset.Door{guarding("web", 443, 443, trusting("198.51.100.0/24")), guarding("ssh", 22, 22)}, true},
		{"one of two doors at the port trusts the client", v4, nil,
			[]ruleset.Door{guarding("first", 22, 22), guarding("second", 22, 22, trusting("198.51.100.0/24"))}, false},
		{"a door at another address trusts the client", v4, nil,
			[]ruleset.Door{guarding("ssh", 22, 22), guarding("other", 22, 22, at("203.0.113.1/32"), trusting("198.51.100.0/24"))}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, ok := host.ParseSession(test.session)
			if !ok {
				t.Fatalf("%q is no session", test.session)
			}
			for _, onTrial := range []bool{false, true} {
				var said strings.Builder
				warnOfLockout(&said, &ruleset.Config{Wall: ruleset.Wall{Trusted: test.trusted}, Doors: test.doors}, s, onTrial)
				if got := said.Len() > 0; got != test.warned {
					t.Errorf("on trial %t: warned %t: %s", onTrial, got, said.String())
				}
			}
		})
	}
}

// Loopback is never judged.
func TestWhoIsHereOverLoopbackIsNotWarned(t *testing.T) {
	for _, text := range []string{"127.0.0.1 50000 127.0.0.1 22", "::1 50000 ::1 22"} {
		s, ok := host.ParseSession(text)
		if !ok {
			t.Fatalf("%q is no session", text)
		}
		var said strings.Builder
		warnOfLockout(&said, &ruleset.Config{Doors: []ruleset.Door{guarding("ssh", 22, 22)}}, s, false)
		if said.Len() > 0 {
			t.Errorf("%s", said.String())
		}
	}
}

func TestTheWarningSaysWhatToDo(t *testing.T) {
	s, _ := host.ParseSession("::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 2222")
	one := &ruleset.Config{Doors: []ruleset.Door{guarding("ssh", 2222, 2222)}}
	for _, test := range []struct {
		name    string
		onTrial bool
		want    string
	}{
		{"for good", false, "You are here by ssh, from 198.51.100.7 to port 2222, which is about to close: the door ssh\n" +
			"hides it. This session goes on, but the next one has to knock. Stay connected\n" +
			"until you have tried that from another terminal.\n" +
			"Safer: start with --confirm 2m, which takes the wall down again unless you\n" +
			"confirm it, or let 198.51.100.7 in without knocking: trusted = [\"198.51.100.7\"]\n"},
		{"on trial", true, "You are here by ssh, from 198.51.100.7 to port 2222, which is about to close: the door ssh\n" +
			"hides it. This session goes on, but the next one has to knock. Stay connected\n" +
			"until you have tried that from another terminal.\n" +
			"The wall is on trial: it goes down again unless you type `knockwall confirm` in time.\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var said strings.Builder
			warnOfLockout(&said, one, s, test.onTrial)
			if diff := cmp.Diff(test.want, said.String()); diff != "" {
				t.Errorf("the warning (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("several doors", func(t *testing.T) {
		var said strings.Builder
		warnOfLockout(&said, &ruleset.Config{Doors: []ruleset.Door{
			guarding("ssh", 2222, 2222), guarding("web", 443, 443), guarding("many", 2000, 3000),
		}}, s, false)
		if text := strings.ReplaceAll(said.String(), "\n", " "); !strings.Contains(text, "the doors ssh, many hide it") {
			t.Errorf("the warning is\n%s", said.String())
		}
	})
}

// tellSession is a program that prints over which ssh connection it was started.
func tellSession() {
	s, ok := host.Session()
	fmt.Println(ok, s.Client, s.Server)
}

func TestTheSessionIsFoundInTheEnvironmentOfThisProcessOrAnAncestor(t *testing.T) {
	program, err := exec.LookPath("session")
	if err != nil {
		t.Fatal(err)
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		lacks(t, "needs a shell")
	}
	// The user of this test may be connected by ssh.
	s, ok := host.Session()
	ours := fmt.Sprintln(ok, s.Client, s.Server)
	const (
		variable = "SSH_CONNECTION=198.51.100.7 50000 192.0.2.1 22"
		found    = "true 198.51.100.7:50000 192.0.2.1:22\n"
		invalid  = "false invalid AddrPort invalid AddrPort\n"
	)
	// The shell does not exec the program, as another command follows.
	child := []string{shell, "-c", program + "; :"}
	for _, test := range []struct {
		name      string
		arguments []string
		variables []string
		want      string
	}{
		{"its own", []string{program}, []string{variable}, found},
		{"its parent's", []string{shell, "-c", "env -i " + program + "; :"}, []string{variable}, found},
		{"its grandparent's", []string{shell, "-c", "env -i " + shell + " -c '" + program + "; :'; :"}, []string{variable}, found},
		{"the nearest", []string{shell, "-c", "SSH_CONNECTION='203.0.113.9 1 203.0.113.1 2' " + program + "; :"}, []string{variable},
			"true 203.0.113.9:1 203.0.113.1:2\n"},
		{"whatever else there is", child, []string{"XSSH_CONNECTION=1 2 3 4", "SSH_CONNECTIONS=1 2 3 4", "A=\nSSH_CONNECTION=1 2 3 4", variable}, found},
		{"nobody's but the test's", child, []string{"SSH_CLIENT=198.51.100.7 50000 22"}, ours},
		{"one that says nothing", []string{program}, []string{"SSH_CONNECTION="}, invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command(test.arguments[0], test.arguments[1:]...)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, test.variables...)
			got, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// lacks skips the test on a machine that lacks a requirement. In CI it fails the test.
func lacks(t *testing.T, format string, a ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, a...)
	}
	t.Skipf(format, a...)
}

// isolated runs a command in its own network namespace, where its wall affects nobody else.
func isolated(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// terminal returns both ends of a pseudoterminal.
func terminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "needs a terminal: %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// said runs the daemon in its own network namespace, with the environment of an ssh session.
// It returns the daemon's output up to when the door is guarded.
func said(t *testing.T, from io.Reader, stderr *os.File, flags ...string) string {
	t.Helper()
	program, err := exec.LookPath("knockwall")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	rules := filepath.Join(folder, "ssh.hcl")
	if err := os.WriteFile(rules, []byte("door \"ssh\" {\n  ports = [22]\n  sequence = [4113, \"27911/udp\", 1840]\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"run", "--config", rules, "--control", filepath.Join(folder, "control.sock")}, flags...)...)
	cmd.Env = append(os.Environ(), "SSH_CONNECTION=198.51.100.7 50000 192.0.2.1 22", "NOTIFY_SOCKET=")
	cmd.Stderr = stderr
	isolated(cmd)
	if err := cmd.Start(); err != nil {
		lacks(t, "needs a network of its own: %v", err)
	}
	stderr.Close()
	watchdog := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Signal(unix.SIGTERM) }()
	var text strings.Builder
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		text.WriteString(line + "\n")
		if strings.HasPrefix(line, "guarding ssh: ") {
			return text.String()
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, unix.EIO) { // the end of a terminal
		t.Error(err)
	}
	lacks(t, "needs a kernel on which run works: %s", text.String())
	return ""
}

func TestOnlyAtATerminalRunWarnsOfALockout(t *testing.T) {
	t.Run("at a terminal", func(t *testing.T) {
		user, program := terminal(t)
		text := said(t, user, program)
		if !strings.HasPrefix(text, "You are here by ssh, from 198.51.100.7 to port 22,") || !strings.Contains(text, "\nSafer: start with --confirm 2m,") {
			t.Errorf("run says\n%s", text)
		}
	})
	t.Run("at a terminal, on trial", func(t *testing.T) {
		user, program := terminal(t)
		text := said(t, user, program, "--confirm", "2m")
		if !strings.HasPrefix(text, "You are here by ssh, ") || strings.Contains(text, "Safer:") || !strings.Contains(text, "\nThe wall is on trial:") {
			t.Errorf("run says\n%s", text)
		}
	})
	t.Run("at none", func(t *testing.T) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		if text := said(t, read, write); strings.Contains(text, "ssh, from") || !strings.HasPrefix(text, "guarding ssh: ") {
			t.Errorf("run says\n%s", text)
		}
	})
}

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
