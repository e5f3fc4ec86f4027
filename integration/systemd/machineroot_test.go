package systemd

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
)

// becomeMachine makes this process, which is the first one of its namespaces, a systemd on
// an overlay of the root filesystem lower. If files names a folder, its files are added to
// the overlay.
func becomeMachine(lower, folder, console, files string) error {
	unix.Umask(0o022) // all users of the machine may read these files
	root := filepath.Join(folder, "root")
	if err := mountMachine(lower, folder, root, console); err != nil {
		return err
	}
	if err := furnish(root); err != nil {
		return err
	}
	if files != "" {
		if err := os.CopyFS(root, os.DirFS(files)); err != nil {
			return err
		}
	}
	if err := errors.Join(unix.Chdir(root), unix.PivotRoot(".", ".")); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	// The former root is mounted on top of the new one. All other mounts are below it and
	// go with it.
	if err := errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
		return fmt.Errorf("leaving the former root: %w", err)
	}
	// The process that gives services their credentials has a mount namespace of its own,
	// and all processes must see what it mounts. Outside of containers systemd does this
	// itself.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("sharing mounts: %w", err)
	}
	return unix.Exec(systemdPath, []string{systemdPath, "--unit=machine.target"}, []string{machinePath, "LANG=C.UTF-8", "container=knockwall"})
}

// mountMachine mounts everything that systemd expects to be mounted.
func mountMachine(lower, folder, root, console string) error {
	const noexec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	type mount struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}
	mounts := []mount{
		{"tmpfs", folder, "tmpfs", 0, "mode=0755"},
		{"overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%[2]s/work", lower, folder)},
		{"proc", root + "/proc", "proc", noexec, ""},
		// The first process raises limits in /proc/sys, which belong to the whole system.
		// Those of the network belong to the machine.
		{root + "/proc/sys", root + "/proc/sys", "", unix.MS_BIND, ""},
		{root + "/proc/sys/net", root + "/proc/sys/net", "", unix.MS_BIND, ""},
		{"", root + "/proc/sys", "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | noexec, ""},
		{"sysfs", root + "/sys", "sysfs", unix.MS_RDONLY | noexec, ""},
		{"cgroup2", root + "/sys/fs/cgroup", "cgroup2", noexec, ""},
		{"tmpfs", root + "/dev", "tmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", root + "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"tmpfs", root + "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", root + "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", root + "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	}
	devices := map[string]string{"console": console}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		devices[name] = "/dev/" + name
	}
	for name, path := range devices {
		mounts = append(mounts, mount{path, root + "/dev/" + name, "", unix.MS_BIND, ""})
	}
	for _, m := range mounts {
		var err error
		switch {
		case m.kind == "overlay":
			err = errors.Join(os.Mkdir(folder+"/upper", 0o755), os.Mkdir(folder+"/work", 0o755), os.Mkdir(root, 0o755))
		case filepath.Dir(m.target) == root+"/dev" && m.kind == "":
			err = os.WriteFile(m.target, nil, 0o644)
		case filepath.Dir(m.target) == root+"/dev":
			err = os.Mkdir(m.target, 0o755)
		}
		if err == nil {
			err = unix.Mount(m.source, m.target, m.kind, m.flags, m.data)
		}
		if err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}

// furnish writes the files in which a machine differs from this system.
func furnish(root string) error {
	// Files that are written below are removed first, because they may be symbolic links
	// that lead out of the machine.
	for _, path := range []string{
		"/etc/systemd", // configuration and enabled units
		"/etc/fstab", "/etc/machine-id", "/etc/hostname",
		"/var/log/journal",
		"/usr/sbin/policy-rc.d", // with it containers forbid packages to start services
		"/etc/.updated",         // so that systemd-sysusers has something to do at boot
	} {
		if err := os.RemoveAll(root + path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(root+machineUnits, 0o755); err != nil {
		return err
	}
	id := make([]byte, 16)
	rand.Read(id)
	for path, text := range map[string]string{
		"/etc/machine-id":               hex.EncodeToString(id) + "\n",
		"/etc/hostname":                 "machine\n",
		"/etc/systemd/system.conf":      "[Manager]\nDefaultEnvironment=" + lab.EndAtOnce + "\n",
		machineUnits + "machine.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
	} {
		if err := os.WriteFile(root+path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	links := map[string]string{"/dev/ptmx": "pts/ptmx", "/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"}
	for _, unit := range masked {
		links[machineUnits+unit] = "/dev/null"
	}
	for path, to := range links {
		if err := os.Symlink(to, root+path); err != nil {
			return err
		}
	}
	return nil
}

// masked are units that would change this system, or that need a long time to find out that
// they cannot.
var masked = []string{
	"modprobe@.service", "systemd-modules-load.service", "systemd-sysctl.service", "systemd-binfmt.service",
	"proc-sys-fs-binfmt_misc.automount", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"sys-fs-fuse-connections.mount", "dev-hugepages.mount", "systemd-journald-audit.socket",
}
