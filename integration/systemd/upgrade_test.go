package systemd

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
)

// dpkg can install the package, upgrade it while a window is open, remove it and purge it,
// under a real systemd.
func TestPackageUnderSystemd(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lab.NeedsRoot(t, "a machine has cgroups")
	for _, program := range []string{"make", "git", "dpkg-deb", "sed", "deb-systemd-helper", "nft"} {
		lab.NeedsProgram(t, program)
	}
	if err := runQuietly("git", "-C", "../..", "rev-parse", "HEAD"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has to have a clone: %v", err)
		}
		t.Skipf("this is no clone: %v", err)
	}
	// In a clone of its own, as somebody may be building in this one.
	clone := filepath.Join(l.Folder, "clone")
	lab.Must(t, runQuietly("git", "clone", "--quiet", "../..", clone))
	deb := debOf(t, clone)
	m := newMachine(l)
	m.copy(deb, "/root/new.deb")
	m.copy(olderThan(t, deb, l.Folder), "/root/old.deb")
	m.copy("../../internal/packaging/test-install.sh", "/root/test-install.sh")
	out, err := m.tellWithin(8*time.Minute, "bash", "/root/test-install.sh", "/root/old.deb", "/root/new.deb")
	if err != nil {
		t.Fatalf("%v%s", err, out)
	}
}

// debOf builds the package of a clone's last commit, and returns the package's path. The
// package is not compressed: that takes longer than all that dpkg does with it below.
func debOf(t *testing.T, clone string) string {
	t.Helper()
	lab.Must(t, runQuietly("sed", "-i", "s/compression: xz/compression: none/", filepath.Join(clone, "internal/packaging/nfpm.yaml")))
	lab.Must(t, runQuietly("git", "-C", clone, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--all", "--message=Not compressed"))
	lab.Must(t, runQuietly("make", "--silent", "-C", clone, "deb"))
	version, err := os.ReadFile(filepath.Join(clone, "build/version"))
	lab.Must(t, err)
	packages, err := filepath.Glob(fmt.Sprintf("%s/build/knockwall_%s_*.deb", clone, bytes.TrimSpace(version)))
	lab.Must(t, err)
	if len(packages) != 1 {
		t.Fatalf("the packages of version %s are %q", version, packages)
	}
	return packages[0]
}

// olderThan makes a package that differs from another only in its version, which is lower.
// It returns its path.
func olderThan(t *testing.T, deb, folder string) string {
	t.Helper()
	tree, older := filepath.Join(folder, "older"), filepath.Join(folder, "older.deb")
	lab.Must(t, runQuietly("dpkg-deb", "-R", deb, tree))
	lab.Must(t, runQuietly("sed", "-i", "s/^Version: .*/Version: 0.0.0~20200101000000/", filepath.Join(tree, "DEBIAN/control")))
	lab.Must(t, runQuietly("dpkg-deb", "-Znone", "-b", tree, older))
	return older
}

// copy copies a file into the machine.
func (m *machine) copy(from, to string) {
	m.t.Helper()
	b, err := os.ReadFile(from)
	lab.Must(m.t, err)
	m.write(to, string(b), 0o644)
}

// runQuietly runs a program on this system. The error contains its output.
func runQuietly(name string, args ...string) error {
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, said)
	}
	return nil
}
