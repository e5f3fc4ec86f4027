package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The package's whole life under a real systemd, by dpkg: installed, upgraded with
// a window open, removed and purged.
func TestPackageUnderSystemd(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	needsRoot(t, "a machine has cgroups")
	for _, program := range []string{"make", "git", "dpkg", "deb-systemd-helper", "nft"} {
		needs(t, program)
	}
	if err := runQuietly("git", "-C", "..", "rev-parse", "HEAD"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has to have a clone: %v", err)
		}
		t.Skipf("this is no clone: %v", err)
	}
	// The newer one is of the files that are here. The older one is of a commit that
	// says it is, as a clone may have no other than the last.
	older := filepath.Join(l.folder, "older")
	must(t, runQuietly("git", "clone", "--quiet", "..", older))
	must(t, runQuietly("env", "GIT_COMMITTER_DATE=2020-01-01T00:00:00Z",
		"git", "-C", older, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--amend", "--no-edit"))
	m := l.newMachine()
	for name, clone := range map[string]string{"old": older, "new": ".."} {
		m.copy(debOf(t, clone), "/root/"+name+".deb")
	}
	m.copy("../internal/packaging/test-install.sh", "/root/test-install.sh")
	out, err := m.tellWithin(8*time.Minute, "bash", "/root/test-install.sh", "/root/old.deb", "/root/new.deb")
	if err != nil {
		t.Fatalf("%v%s", err, out)
	}
}

// debOf builds the package of a clone's last commit, and returns its path.
func debOf(t *testing.T, clone string) string {
	t.Helper()
	must(t, runQuietly("make", "--silent", "-C", clone, "deb"))
	version, err := os.ReadFile(filepath.Join(clone, "build/version"))
	must(t, err)
	packages, err := filepath.Glob(fmt.Sprintf("%s/build/knockwall_%s_*.deb", clone, bytes.TrimSpace(version)))
	must(t, err)
	if len(packages) != 1 {
		t.Fatalf("the packages of version %s are %q", version, packages)
	}
	return packages[0]
}

// copy copies a file into the machine.
func (m *machine) copy(from, to string) {
	m.t.Helper()
	b, err := os.ReadFile(from)
	must(m.t, err)
	m.write(to, string(b), 0o644)
}

// runQuietly runs a program here; what it says is in the error.
func runQuietly(name string, args ...string) error {
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, said)
	}
	return nil
}
