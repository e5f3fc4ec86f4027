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
	"github.com/knockwall/knockwall/internal/eventually"
)

// machineVariable makes a test binary the first process of a machine.
const machineVariable = "KNOCKWALL_MACHINE"

// machineRootVariable names the root filesystem of machines, for example one of another
// release. By default it is the root filesystem of this system.
const machineRootVariable = "KNOCKWALL_MACHINE_ROOT"

const (
	systemdPath  = "/usr/lib/systemd/systemd"
	machinePath  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	machineUnits = "/etc/systemd/system/"
)

// machine is a server whose first process is a systemd of its own. Its disk is an overlay
// of this system's root filesystem, and disappears with the machine. Its only network is
// that of the lab's server.
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

// newMachineWith boots a machine. If files names a folder, the machine has the files in it
// from the start.
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
		Setsid:      true, // on an interrupt of the tests systemd would reboot
		UseCgroupFD: true,
		CgroupFD:    int(group.Fd()),
		// A cgroup namespace that clone makes would have the cgroup of the tests as its
		// root, because the child moves to its own cgroup later. There is no Pdeathsig,
		// because the thread that starts a process on a host ends at once. A machine ends
		// with the process namespace of the tests.
		Cloneflags:   unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	lab.Must(l.T, lab.StartOn(l.Server, m.cmd))
	written := make(chan struct{})
	go func() { io.Copy(m.console, pty); close(written) }()
	go func() {
		m.cmd.Wait()
		tty.Close() // the last close ends the copying
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
	eventually.True(l.T, "the machine has booted", func() bool {
		select {
		case <-m.exited:
			l.T.Fatalf("the machine ended: %v", m.cmd.ProcessState)
		default:
		}
		// Before the process is systemd, its root is that of this system.
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.cmd.Process.Pid)); string(name) != "systemd\n" {
			return false
		}
		if _, err := os.Stat(m.outside("/run/systemd/private")); err != nil {
			return false
		}
		// The state is degraded if any unit has failed. systemctl then returns an error.
		state, _ := m.tell("systemctl", "is-system-running", "--wait")
		return state == "running\n" || state == "degraded\n"
	})
	return m
}

// end kills the machine, if it still runs.
func (m *machine) end() {
	m.t.Helper()
	m.cmd.Process.Kill()
	select {
	case <-m.exited:
	case <-time.After(lab.Deadline):
		m.t.Error("the machine was killed but does not end")
	}
}

// newTerminal makes a terminal, because systemd reports early failures to a console only if
// it is a terminal. What is written to tty can be read from pty.
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

// newCgroup makes a cgroup. After the test it is removed with all cgroups below it.
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
		// Mount the cgroup filesystem only if it is not mounted, because all mounts take
		// over the options of a new one.
		parent, err = os.MkdirTemp("", "kw-cgroup-")
		lab.Must(t, err)
		t.Cleanup(func() { os.Remove(parent) })
		lab.Must(t, unix.Mount("cgroup2", parent, "cgroup2", 0, ""))
		t.Cleanup(func() { unix.Unmount(parent, unix.MNT_DETACH) })
	}
	path, err := os.MkdirTemp(parent, "knockwall-")
	lab.Must(t, err)
	t.Cleanup(func() {
		eventually.True(t, "the machine's cgroups are gone", func() bool {
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

// tell runs a command in the machine, as root, with a clean environment, and in none of its
// units. It returns the stdout. The error contains the stderr.
func (m *machine) tell(name string, args ...string) (string, error) {
	return m.tellWithin(lab.Deadline, name, args...)
}

// tellWithin is tell with another time limit.
func (m *machine) tellWithin(limit time.Duration, name string, args ...string) (string, error) {
	select {
	case <-m.exited: // its process id may belong to another process now
		return "", fmt.Errorf("the machine ended: %v", m.cmd.ProcessState)
	default:
	}
	// The time limit is set inside, because nsenter must not end before its child: the
	// child would then belong to these tests, and a process namespace ends only after all
	// its processes have been waited for.
	enter := []string{"--target", strconv.Itoa(m.cmd.Process.Pid), "--all", "--", "timeout", "--signal=KILL", fmt.Sprint(limit.Seconds()), name}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = []string{machinePath, "HOME=/root", "LANG=C.UTF-8", lab.EndAtOnce}
	cmd.WaitDelay = lab.Deadline // for processes that the command has left behind
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	if err != nil && time.Since(began) >= limit {
		err = fmt.Errorf("not done after %s: %w", limit, err)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), err
}

// does runs a command in the machine and returns its stdout. The test fails if the command
// does.
func (m *machine) does(name string, args ...string) string {
	m.t.Helper()
	out, err := m.tell(name, args...)
	if err != nil {
		m.t.Fatalf("in the machine: %v%s", err, out)
	}
	return out
}

// eventually waits until a condition holds that programs in the machine tell. It pauses for
// twice as long as they take, to leave the machine time for what the test waits for.
func (m *machine) eventually(what string, holds func() bool) {
	m.t.Helper()
	eventually.True(m.t, what, func() bool {
		asked := time.Now()
		if holds() {
			return true
		}
		time.Sleep(2 * time.Since(asked))
		return false
	})
}

// synced runs journalctl when the journal has all messages until now.
func (m *machine) synced(arguments ...string) string {
	m.t.Helper()
	return m.does("sh", append([]string{"-ec", `journalctl --sync; exec journalctl "$@"`, "sh"}, arguments...)...)
}

// outside returns the path by which this system sees a file of the machine. The path must
// not contain absolute symbolic links, because they lead to files of this system.
func (m *machine) outside(path string) string {
	return fmt.Sprintf("/proc/%d/root", m.cmd.Process.Pid) + path
}

// write writes a file of the machine, which belongs to root.
func (m *machine) write(path, text string, mode os.FileMode) {
	m.t.Helper()
	lab.WriteFile(m.t, m.outside(path), text, mode)
}

// packaged writes the files of the package below a folder.
func packaged(t testing.TB, root string) {
	t.Helper()
	files := map[string]string{
		lab.BinaryPath():                  "/usr/bin/knockwall",
		"../../systemd/sysusers.conf":     "/usr/lib/sysusers.d/knockwall.conf",
		"../../systemd/tmpfiles.conf":     "/usr/lib/tmpfiles.d/knockwall.conf",
		"../../systemd/knockwall.catalog": "/usr/lib/systemd/catalog/knockwall.catalog",
	}
	for _, kind := range []string{"service", "socket", "path", "timer"} {
		units, err := filepath.Glob("../../systemd/*." + kind)
		lab.Must(t, err)
		for _, unit := range units {
			files[unit] = "/usr/lib/systemd/system/" + filepath.Base(unit)
		}
	}
	for from, to := range files {
		b, err := os.ReadFile(from)
		lab.Must(t, err)
		mode := os.FileMode(0o644)
		if to == "/usr/bin/knockwall" {
			mode = 0o755
		}
		lab.WriteFile(t, root+to, string(b), mode)
	}
}
