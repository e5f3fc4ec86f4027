package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/netlab"
)

// The four commands of the README, exactly as they are written there, lead from a fresh host
// and a fresh client to an ssh that only a knock with the key reaches.
func TestTheFourCommandsOfTheREADME(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t, "sshd switches users, and a user namespace of one's own has one")
	sshd, keygen := lab.NeedsProgram(t, "sshd"), lab.NeedsProgram(t, "ssh-keygen")
	lab.NeedsProgram(t, "ssh")
	lab.NeedsProgram(t, "ssh-agent")
	readme, err := os.ReadFile("../../README.md")
	lab.Must(t, err)
	_, text, _ := strings.Cut(string(readme), "## Hide ssh in five minutes\n")
	text, _, _ = strings.Cut(text, "\n## ")
	var commands []string
	for _, m := range regexp.MustCompile(`(?m)^    (\S.*)$`).FindAllStringSubmatch(text, -1) {
		commands = append(commands, m[1])
	}
	if len(commands) != 7 {
		t.Fatalf("the README has %d commands: %q", len(commands), commands)
	}

	l := lab.New(t)
	server, client := newHome(t, l.Server, l.Folder, "server"), newHome(t, l.Client, l.Folder, "client")
	// The session in which the host's administrator types comes from elsewhere: the address
	// of that session is trusted.
	server.environment = append(server.environment, fmt.Sprintf("SSH_CONNECTION=%s 50000 %s 22", lab.Source(9, lab.Server4), lab.Server4))
	for _, at := range []string{server.path("host"), client.path(".ssh/id_ed25519")} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", "alice@laptop", "-f", at).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(client.path(".ssh/id_ed25519.pub"))
	lab.Must(t, err)
	lab.WriteFile(t, server.path(".ssh/authorized_keys"), string(public), 0o600)
	lab.WriteFile(t, client.path(".ssh/config"), "StrictHostKeyChecking no\nBatchMode yes\nLogLevel ERROR\nUser root\n", 0o600)
	lab.WriteFile(t, server.path("sshd_config"), fmt.Sprintf(
		"Port 22\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n",
		server.path("host"), server.path(".ssh/authorized_keys")), 0o600)
	_ = os.MkdirAll("/run/sshd", 0o755) // Debian's sshd needs it
	daemon := exec.Command(sshd, "-D", "-e", "-f", server.path("sshd_config"))
	log := &lab.Output{}
	daemon.Stderr = log
	lab.Must(t, lab.StartOn(l.Server, daemon))
	t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	eventually.True(t, "sshd listens", func() bool { return strings.Contains(log.String(), "Server listening") })

	server.run(commands[0])
	invited := server.run(commands[1])
	line := regexp.MustCompile(`(?m)^knockwall:\S+$`).FindString(invited)
	if line == "" {
		t.Fatalf("%s prints no invitation: %s", commands[1], invited)
	}
	d := l.LaunchCommand(server.path("control"), server.command("knockwall run --control "+server.path("control")))
	d.WaitFor("started")
	if l.AdmitsAtOnce(lab.Client4, lab.Server4, 22) {
		t.Error("ssh answers without a knock")
	}
	name, err := os.Hostname()
	lab.Must(t, err)
	fill := strings.NewReplacer("LINE", line, "HOST", name)
	client.run(fill.Replace(commands[2]))
	for _, option := range []string{"user root\n", "batchmode yes\n"} { // as the file says for all hosts
		if out := client.run("ssh -G other"); !strings.Contains(out, option) {
			t.Errorf("after join --ssh, another host lacks %q:\n%s", option, out)
		}
	}
	ssh := fill.Replace(commands[3]) + " echo inside"
	if out := client.run(ssh); out != "inside\n" {
		t.Errorf("%s: %s", ssh, out)
	}
	// The agent has the key, and no file has it any more.
	ssh = "ssh-agent sh -c 'ssh-add -q && mv .ssh/id_ed25519 away && " + ssh + "'"
	if out := client.run(ssh); out != "inside\n" {
		t.Errorf("%s: %s", ssh, out)
	}
	d.WaitForCount(2, "accepted", "person=alice@laptop")

	// On trial, the rules are confirmed by the last commands.
	server.run(commands[4])
	for _, c := range commands[5:] {
		server.run(c + " --control " + server.path("control"))
	}
	d.WaitFor("reloaded", "code=confirmed")
}

// home is a host on which nobody has used knockwall: it has a home folder and an /etc of its
// own.
type home struct {
	t           *testing.T
	host        *netlab.Host
	folder      string
	environment []string
}

func newHome(t *testing.T, host *netlab.Host, folder, name string) *home {
	t.Helper()
	h := &home{t: t, host: host, folder: filepath.Join(folder, name)}
	for _, folder := range []string{".ssh", "bin", "etc", "work"} {
		lab.Must(t, os.MkdirAll(h.path(folder), 0o700))
	}
	lab.Must(t, os.Symlink(lab.BinaryPath(), h.path("bin/knockwall")))
	lab.WriteFile(t, h.path("bin/sudo"), "#!/bin/sh\nexec \"$@\"\n", 0o755) // root has it already
	h.environment = append(os.Environ(), "HOME="+h.folder, "XDG_CONFIG_HOME=", "SSH_AUTH_SOCK=", "PATH="+h.path("bin")+":"+os.Getenv("PATH"))
	return h
}

func (h *home) path(name string) string { return filepath.Join(h.folder, name) }

// command returns a command of a shell.
func (h *home) command(text string) *exec.Cmd {
	mounts := fmt.Sprintf("mount -t overlay overlay -o lowerdir=/etc,upperdir=%s,workdir=%s /etc && cd && exec sh -c \"$0\"", h.path("etc"), h.path("work"))
	// ssh takes the home of a user from the passwd database, and not from HOME.
	mounts = fmt.Sprintf("mount --bind %s /root && %s", h.folder, mounts)
	c := exec.Command("unshare", "--mount", "sh", "-c", mounts, text)
	c.Env = h.environment
	return c
}

// run runs a command, and returns its output.
func (h *home) run(text string) string {
	h.t.Helper()
	c, out := h.command(text), &lab.Output{}
	c.Stdout, c.Stderr = out, out
	lab.Must(h.t, lab.StartOn(h.host, c))
	if err := c.Wait(); err != nil {
		h.t.Fatalf("%s: %v\n%s", text, err, out)
	}
	return out.String()
}
