package clients

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// Each example works as its comments say. The test runs the commands of the comments on
// the host, reads the rule file with no warning but the one about published knocks, and
// runs the client's commands, over IPv4 and IPv6. examples_doors_test.go tests the special
// features of each example.
func TestExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../examples/*.hcl")
	lab.Must(t, err)
	published := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hcl")
		published[name] = true
		try := examples[name]
		if try == nil {
			t.Errorf("%s has no test: add one to examples", file)
			continue
		}
		for family, to := range map[string]netip.Addr{"IPv4": lab.Server4, "IPv6": lab.Server6} {
			t.Run(name+", "+family, func(t *testing.T) {
				t.Parallel()
				try(newExample(t, file, to))
			})
		}
	}
	for name := range examples {
		if !published[name] {
			t.Errorf("there is no example %s any more", name)
		}
	}
}

// example is a published rule file in its own lab.
type example struct {
	*lab.Lab
	t    *testing.T
	to   netip.Addr // the server's address for the knocks
	self netip.Addr // the client's source address towards it
	text string     // the rule file as installed here
	path string
	d    *lab.Daemon
}

// newExample installs an example. It writes the rule file, and runs the commands of its
// comments on the host.
//
// Only newExample changes an example for the test: paths that do not exist here lead to
// the lab's folder.
func newExample(t *testing.T, file string, to netip.Addr) *example {
	e := &example{Lab: lab.New(t), t: t, to: to, self: lab.Client4}
	if to.Is6() {
		e.self = lab.Client6
	}
	for _, folder := range []string{"secrets", "credentials", "state", "run", "bin", "home/.ssh"} {
		lab.Must(t, os.MkdirAll(filepath.Join(e.Folder, folder), 0o700))
	}
	lab.Must(t, os.Symlink(lab.BinaryPath(), e.file("bin/knockwall")))
	text, err := os.ReadFile(file)
	lab.Must(t, err)
	e.text = strings.NewReplacer(
		"/etc/knockwall.secrets", e.file("secrets"),
		"/etc/knockwall.d/people", e.file("people"),
		"/var/lib/knockwall", e.file("state"),
		"/run/knockwall", e.file("run"),
		`"logger"`, fmt.Sprintf("%q", e.file("bin/logger")),
		// This machine has only one user.
		"sudo install -d -o root -g knockwall", "install -d",
		"sudo install -o root -g knockwall", "install",
		"sudo install -o knockwall -g knockwall", "install",
	).Replace(string(text))
	e.path = e.file(filepath.Base(file))
	// The rule file is readable by all, so it must contain no secret.
	lab.Must(t, os.WriteFile(e.path, []byte(e.text), 0o644))
	for _, command := range e.typed() {
		if strings.Contains(command, "install ") {
			if strings.Contains(command, "openssl") {
				lab.NeedsProgram(t, "openssl")
			}
			if out, err := exec.Command("/bin/sh", "-e", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
		}
	}
	for _, m := range loadedCredential.FindAllStringSubmatch(e.text, -1) {
		lab.Must(t, os.WriteFile(e.file("credentials/"+m[1]), []byte("the secret of "+m[1]+"\n"), 0o400))
	}
	return e
}

func (e *example) file(name string) string { return filepath.Join(e.Folder, name) }

var (
	loadedCredential = regexp.MustCompile(`LoadCredential=([a-z-]+):`)
	// typedLine is a command in a comment, with its continuation lines.
	typedLine = regexp.MustCompile(`(?m)^#   ((?:knockwall knock|sed|sudo|install|openssl|for) .*(?:\n#     .*)*)$`)
	someHost  = regexp.MustCompile(`\b[a-z]+\.example\.org\b`)
)

// typed returns the commands in the comments, in order, each up to the use of the
// service.
func (e *example) typed() (commands []string) {
	for _, m := range typedLine.FindAllStringSubmatch(e.text, -1) {
		command, _, _ := strings.Cut(strings.ReplaceAll(m[1], "\n#", "\n"), " && ")
		commands = append(commands, command)
	}
	return commands
}

// knocks returns the commands for a client, with the example's address, in order.
func (e *example) knocks() (commands []string) {
	for _, command := range e.typed() {
		otherFamily := " -6 "
		if e.to.Is6() {
			otherFamily = " -4 "
		}
		if strings.HasPrefix(command, "knockwall knock") && !strings.Contains(command, otherFamily) {
			commands = append(commands, someHost.ReplaceAllString(command, e.to.String()))
		}
	}
	return commands
}

// run starts the daemon as the service does, with its credentials.
func (e *example) run() {
	e.t.Helper()
	environment := append(quickEnd(), "CREDENTIALS_DIRECTORY="+e.file("credentials"), "STATE_DIRECTORY="+e.file("state"))
	check := lab.Knockwall("check", "--config", e.path)
	check.Env = environment
	out, err := check.CombinedOutput()
	if warned := strings.Count(string(out), "Warning: "); err != nil || warned != strings.Count(string(out), "is an example in a manual") {
		e.t.Fatalf("check says %v\n%s", err, out)
	}
	path := e.file("control")
	daemon := lab.Knockwall("run", "--config", e.path, "--control", path)
	daemon.Env = environment
	e.d = e.LaunchCommand(path, daemon)
	eventually.True(e.t, "the daemon guards", func() bool { return e.d.Logged("started") > 0 })
}

func quickEnd() []string { return append(os.Environ(), lab.EndAtOnce) }

// door returns a door of the rule file.
func (e *example) door(name string) *ruleset.Door {
	e.t.Helper()
	loaded := ruleset.Review(e.path)
	if loaded.Config == nil || loaded.Config.Door(name) == nil {
		e.t.Fatalf("the example has no door %s: %v", name, loaded.Diagnostics)
	}
	return loaded.Config.Door(name)
}

// types runs a command on the client, which has a home folder and knockwall.
func (e *example) types(command string) {
	e.t.Helper()
	setting := fmt.Sprintf("export HOME=%s PATH=%s:$PATH %s; ", e.file("home"), e.file("bin"), lab.EndAtOnce)
	if out, err := e.RunOnClient("/bin/sh", "-e", "-c", setting+command); err != nil {
		e.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// opens runs a command on the client and checks that it opens a door.
func (e *example) opens(door, command string) {
	e.t.Helper()
	before := e.d.Logged("opened", "door="+door)
	e.types(command)
	eventually.True(e.t, command+" opens the door "+door, func() bool { return e.d.Logged("opened", "door="+door) > before })
}

// shut and open check that a port of the server is unreachable from an address, or
// reachable.
func (e *example) shut(from netip.Addr, port packet.Port, why string) {
	e.t.Helper()
	if e.reaches(false, from, port) {
		e.t.Errorf("%s gets in at %s of %s: %s", from, port, e.to, why)
	}
}

func (e *example) open(from netip.Addr, port packet.Port, why string) {
	e.t.Helper()
	if !e.reaches(true, from, port) {
		e.t.Errorf("%s is kept out of %s of %s: %s", from, port, e.to, why)
	}
}

func (e *example) reaches(want bool, from netip.Addr, port packet.Port) bool {
	e.t.Helper()
	if port.Protocol == packet.UDP {
		return answered(e.Lab, want, from, e.to, port.Number)
	}
	return e.Admitted(want, from, e.to, int(port.Number))
}

// closes closes a door by command.
func (e *example) closes(door string, source netip.Addr) {
	e.t.Helper()
	_, err := control.NewClient(e.d.Control).Close(context.Background(), door, source.String(), false)
	lab.Must(e.t, err)
}

// answered reports whether a datagram is answered. It waits long only if want is true.
func answered(l *lab.Lab, want bool, from, to netip.Addr, port uint16) bool {
	l.T.Helper()
	err := l.Client.Do(func() error {
		fd, err := lab.BoundSocket(from, to, unix.SOCK_DGRAM)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if !want {
			timeout := unix.NsecToTimeval(int64(lab.Short))
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
				return err
			}
		}
		if err := unix.Sendto(fd, []byte("ping"), 0, lab.Sockaddr(to, port)); err != nil {
			return err
		}
		b := make([]byte, 4)
		if n, err := lab.Receive(fd, b); err != nil || string(b[:n]) != "ping" {
			return fmt.Errorf("no answer: %w", err)
		}
		return nil
	})
	return err == nil
}
