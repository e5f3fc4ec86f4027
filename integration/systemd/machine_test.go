package systemd

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
)

// machineVariable makes this program the first process of a machine.
const machineVariable = "KNOCKWALL_MACHINE"

// machineRootVariable names the root filesystem of machines, where that is not to
// be this one's: that of another release, say.
const machineRootVariable = "KNOCKWALL_MACHINE_ROOT"

const (
	systemdPath  = "/usr/lib/systemd/systemd"
	machinePath  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	machineUnits = "/etc/systemd/system/"
)

// machine is a server with a systemd of its own as its first process. It has the
// system that it is on for its disk, and what it writes there is gone with it. It
// is on the lab's server host, and on no other network.
type machine struct {
	t       testing.TB
	cmd     *exec.Cmd
	console *lab.Output
	exited  chan struct{}
}

// newMachine boots a machine.
func newMachine(l *lab.Lab) *machine {
	l.T.Helper()
	return newMachineWith(l, "")
}

// newMachineWith boots a machine that has the files in a folder from the start, if
// one is named.
func newMachineWith(l *lab.Lab, files string) *machine {
	l.T.Helper()
	lab.NeedsRoot(l.T, "a machine has cgroups")
	lab.NeedsProgram(l.T, "nsenter")
	lower := os.Getenv(machineRootVariable)
	if lower == "" {
		lower = "/"
	}
	lab.NeedsProgram(l.T, filepath.Join(lower, systemdPath))
	folder, err := os.MkdirTemp(l.Folder, "machine-")
	lab.Must(l.T, err)
	group := newCgroup(l.T)
	m := &machine{t: l.T, console: &lab.Output{}, exited: make(chan struct{})}
	pty, tty := newTerminal(l.T)
	m.cmd = exec.Command("/proc/self/exe", lower, folder, tty.Name(), files)
	m.cmd.Env = []string{machineVariable + "=1"}
	m.cmd.Stdout, m.cmd.Stderr = tty, tty
	m.cmd.SysProcAttr = &unix.SysProcAttr{
		Setsid:      true, // An interrupt is for the tests: systemd would reboot.
		UseCgroupFD: true,
		CgroupFD:    int(group.Fd()),
		// A cgroup namespace made by clone would have the tests' cgroup for its
		// root, as the child moves to its own only after. There is no Pdeathsig, as
		// the thread that starts a process on a host ends at once: a machine ends
		// with the process namespace that the tests are in.
		Cloneflags:   unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	lab.Must(l.T, lab.StartOn(l.Server, m.cmd))
	written := make(chan struct{})
	go func() { io.Copy(m.console, pty); close(written) }()
	go func() {
		m.cmd.Wait()
		tty.Close() // The last one to do so ends the copying.
		<-written
		close(m.exited)
	}()
	l.T.Cleanup(func() {
		if l.T.Failed() {
			journal, err := m.tell("journalctl", "--no-pager", "--lines=200")
			l.T.Logf("the machine's console:\n%s\nits journal (%v):\n%s", lab.Tail(m.console.String(), 4000), err, lab.Tail(journal, 16000))
		}
		m.end()
	})
	lab.Eventually(l.T, "the machine has booted", func() bool {
		select {
		case <-m.exited:
			l.T.Fatalf("the machine ended: %v", m.cmd.ProcessState)
		default:
		}
		// Before it is systemd, its root is the one of this system.
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.cmd.Process.Pid)); string(name) != "systemd\n" {
			return false
		}
		if _, err := os.Stat(m.outside("/run/systemd/private")); err != nil {
			return false
		}
		// Degraded is what it is if anything has failed, an error to systemctl.
		state, _ := m.tell("systemctl", "is-system-running", "--wait")
		return state == "running\n" || state == "degraded\n"
	})
	return m
}

// end switches the machine off, if it is not yet.
func (m *machine) end() {
	m.t.Helper()
	m.cmd.Process.Kill()
	select {
	case <-m.exited:
	case <-time.After(lab.Deadline):
		m.t.Error("the machine was killed and does not end")
	}
}

// newTerminal makes a terminal, as systemd reports what fails early on no console
// that is not one. What is written to tty is read from pty.
func newTerminal(t testing.TB) (pty, tty *os.File) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	lab.Must(t, err)
	t.Cleanup(func() { pty.Close() })
	lab.Must(t, unix.IoctlSetPointerInt(int(pty.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(int(pty.Fd()), unix.TIOCGPTN)
	lab.Must(t, err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	lab.Must(t, err)
	return pty, tty
}

// newCgroup makes a cgroup that is gone after the test, with all that are in it.
func newCgroup(t testing.TB) *os.File {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	lab.Must(t, err)
	var parent string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			parent = f[1]
			break
		}
	}
	if parent == "" {
		// Only if there is none, as all mounts take over the options of a new one.
		parent, err = os.MkdirTemp("", "kw-cgroup-")
		lab.Must(t, err)
		t.Cleanup(func() { os.Remove(parent) })
		lab.Must(t, unix.Mount("cgroup2", parent, "cgroup2", 0, ""))
		t.Cleanup(func() { unix.Unmount(parent, unix.MNT_DETACH) })
	}
	path, err := os.MkdirTemp(parent, "knockwall-")
	lab.Must(t, err)
	t.Cleanup(func() {
		lab.Eventually(t, "the machine's cgroups are gone", func() bool {
			var groups []string
			filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					groups = append(groups, p)
				}
				return nil
			})
			for _, g := range slices.Backward(groups) {
				unix.Rmdir(g)
			}
			return len(groups) == 0
		})
	})
	group, err := os.Open(path)
	lab.Must(t, err)
	t.Cleanup(func() { group.Close() })
	return group
}

// tell runs a command in the machine, as root, with a clean environment and in
// none of its units, and returns its stdout; its stderr is in the error.
func (m *machine) tell(name string, args ...string) (string, error) {
	return m.tellWithin(lab.Deadline, name, args...)
}

// tellWithin is tell for what may take longer than most.
func (m *machine) tellWithin(patience time.Duration, name string, args ...string) (string, error) {
	select {
	case <-m.exited: // and its number may be somebody else's
		return "", fmt.Errorf("the machine ended: %v", m.cmd.ProcessState)
	default:
	}
	// The bound is set inside, as nsenter must not end before its child: that would
	// become a child of these tests, and no process namespace ends before all its
	// dead have been waited for.
	enter := []string{"--target", strconv.Itoa(m.cmd.Process.Pid), "--all", "--", "timeout", "--signal=KILL", fmt.Sprint(patience.Seconds()), name}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = []string{machinePath, "HOME=/root", "LANG=C.UTF-8", lab.EndAtOnce}
	cmd.WaitDelay = lab.Deadline // for what the command has left running
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	if err != nil && time.Since(began) >= patience {
		err = fmt.Errorf("not done after %s: %w", patience, err)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), err
}

// does runs a command in the machine that has to succeed, and returns its stdout.
func (m *machine) does(name string, args ...string) string {
	m.t.Helper()
	out, err := m.tell(name, args...)
	if err != nil {
		m.t.Fatalf("in the machine: %v%s", err, out)
	}
	return out
}

// outside is where this system sees a file of the machine; the path must have no
// absolute symbolic links in it, as these lead nowhere near.
func (m *machine) outside(path string) string {
	return fmt.Sprintf("/proc/%d/root", m.cmd.Process.Pid) + path
}

// write makes a file of the machine, root's.
func (m *machine) write(path, text string, mode os.FileMode) {
	m.t.Helper()
	lab.WriteFile(m.t, m.outside(path), text, mode)
}

// packaged makes the files of the package below a folder.
func packaged(t testing.TB, root string) {
	t.Helper()
	for from, to := range map[string]string{
		lab.BinaryPath():                  "/usr/bin/knockwall",
		"../../systemd/knockwall.service": "/usr/lib/systemd/system/knockwall.service",
		"../../systemd/knockwall.socket":  "/usr/lib/systemd/system/knockwall.socket",
		"../../systemd/sysusers.conf":     "/usr/lib/sysusers.d/knockwall.conf",
		"../../systemd/tmpfiles.conf":     "/usr/lib/tmpfiles.d/knockwall.conf",
		"../../systemd/knockwall.catalog": "/usr/lib/systemd/catalog/knockwall.catalog",
	} {
		b, err := os.ReadFile(from)
		lab.Must(t, err)
		mode := os.FileMode(0o644)
		if to == "/usr/bin/knockwall" {
			mode = 0o755
		}
		lab.WriteFile(t, root+to, string(b), mode)
	}
}

// install does what the package does: knockwall is there and is not started.
func (m *machine) install() {
	m.t.Helper()
	packaged(m.t, m.outside(""))
	m.does("journalctl", "--update-catalog")
	m.does("systemd-sysusers", "/usr/lib/sysusers.d/knockwall.conf")
	m.does("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/knockwall.conf")
	m.does("install", "--directory", "--owner=root", "--group=knockwall", "--mode=0750", "/etc/knockwall.d")
	m.does("systemctl", "daemon-reload")
}
