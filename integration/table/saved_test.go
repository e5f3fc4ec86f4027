package table

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

// A ruleset that was saved while a window was open contains the wall's table. If it is
// loaded when no daemon runs, as at boot, the next daemon replaces the table and keeps no
// window of it. It keeps those of a table that a daemon has made.
func TestARestoredTableGivesNoWindows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  func(*lab.Lab, string) *lab.Daemon
	}{{"owned", (*lab.Lab).Run}, {"not owned", (*lab.Lab).RunUnowned}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			d := c.run(l, lab.RulesWith("", "10m"))
			servers := []netip.Addr{lab.Server4, lab.Server6}
			for _, server := range servers {
				l.Enter(lab.Source(1, server), server)
			}
			listed := l.Nft("list", "ruleset")
			if !strings.Contains(listed, "delete it from files with saved rules") {
				t.Errorf("the saved ruleset has no note for its reader:\n%s", listed)
			}
			saved := filepath.Join(l.Folder, "saved.nft")
			lab.Must(t, os.WriteFile(saved, []byte(loadable(t, listed)), 0o600))

			lab.Must(t, d.Stop(syscall.SIGTERM))
			d = c.run(l, lab.RulesWith("", "10m"))
			if windows := l.KernelWindows(); len(windows) != len(servers) {
				t.Fatalf("after a restart the windows are %v", windows)
			}

			lab.Must(t, d.Stop(syscall.SIGTERM))
			l.Nft("delete", "table", "inet", "knockwall")
			l.Nft("-f", saved)
			if !strings.Contains(l.Nft("list", "ruleset"), "expires") {
				t.Fatal("the saved windows are missing, so this proves nothing")
			}
			d = c.run(l, lab.RulesWith("", "10m"))
			if listed := l.Nft("list", "ruleset"); strings.Contains(listed, "expires") {
				t.Errorf("the windows are open again:\n%s", listed)
			}
			if windows := d.Status().Windows; len(windows) != 0 {
				t.Errorf("the daemon has taken the windows over: %v", windows)
			}
			for _, server := range servers {
				if l.AdmitsAtOnce(lab.Source(1, server), server, 22) {
					t.Errorf("%s gets in", lab.Source(1, server))
				}
				l.Enter(lab.Source(2, server), server)
			}
		})
	}
}

// saving is how docs/limits.md says to save a ruleset.
const saving = `{ echo '#!/usr/sbin/nft -f'; echo 'flush ruleset'
  nft list tables | grep -vx 'table inet knockwall' | xargs -rL1 nft list; } > "$0"`

// A ruleset that was saved without the wall can be loaded while the wall is in force, and
// does not change it.
func TestARulesetSavedAsDocumentedDoesNoHarm(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/limits.md")
	lab.Must(t, err)
	squeezed := strings.Join(strings.Fields(string(page)), " ")
	if says := strings.Join(strings.Fields(strings.Replace(saving, `"$0"`, "/etc/nftables.conf", 1)), " "); !strings.Contains(squeezed, says) {
		t.Errorf("the page does not say %s", says)
	}
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(lab.RulesWith("", "10m"))
	l.Nft("add", "table", "ip", "mine")
	l.Nft("add", "chain", "ip", "mine", "input", "{ type filter hook input priority 0; policy accept; }")
	l.Nft("add", "rule", "ip", "mine", "input", "tcp", "dport", "25", "drop")
	mine := l.Nft("list", "table", "ip", "mine")
	l.Enter(lab.Source(1, lab.Server4), lab.Server4)

	lab.NeedsProgram(t, "nft")
	saved := filepath.Join(l.Folder, "nftables.conf")
	cmd := exec.Command("sh", "-c", saving, saved)
	lab.Must(t, lab.StartOn(l.Server, cmd))
	lab.Must(t, cmd.Wait())
	l.Nft("delete", "table", "ip", "mine")
	l.Nft("-f", saved)
	if got := l.Nft("list", "table", "ip", "mine"); got != mine {
		t.Errorf("the saved table is now\n%s", got)
	}
	eventually.True(t, "the wall is in force", func() bool { return len(l.KernelWindows()) == 1 })
	if windows := d.Status().Windows; len(windows) != 1 {
		t.Errorf("the windows are %v", windows)
	}
	if err := l.OnFirstSYN(lab.Source(1, lab.Server4), lab.Server4); err != nil {
		t.Errorf("a client with a window: %v", err)
	}
}
