package integration

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A ruleset that was saved while a window was open, and is loaded again where no daemon
// runs, as at the start of the machine, has the wall's table in it. It is replaced, and
// its windows are nobody's; those of a table that a daemon has made are.
func TestARestoredTableGivesNoWindows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  func(*lab, string) *daemon
	}{{"owned", (*lab).run}, {"not owned", (*lab).runUnowned}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.serve(22)
			d := c.run(l, survivalRules("", "10m"))
			servers := []netip.Addr{server4, server6}
			for _, server := range servers {
				l.enter(nth(1, server), server)
			}
			listed := l.nft("list", "ruleset")
			if !strings.Contains(listed, "delete it from files with saved rules") {
				t.Errorf("who reads the saved ruleset is not told:\n%s", listed)
			}
			saved := filepath.Join(l.folder, "saved.nft")
			must(t, os.WriteFile(saved, []byte(loadable(t, listed)), 0o600))

			must(t, d.end(syscall.SIGTERM))
			d = c.run(l, survivalRules("", "10m"))
			if windows := l.kernelWindows(); len(windows) != len(servers) {
				t.Fatalf("after a restart the windows are %v", windows)
			}

			must(t, d.end(syscall.SIGTERM))
			l.nft("delete", "table", "inet", "knockwall")
			l.nft("-f", saved)
			if !strings.Contains(l.nft("list", "ruleset"), "expires") {
				t.Fatal("the saved windows are not there, and this proves nothing")
			}
			d = c.run(l, survivalRules("", "10m"))
			if listed := l.nft("list", "ruleset"); strings.Contains(listed, "expires") {
				t.Errorf("the windows are open again:\n%s", listed)
			}
			if windows := d.status().Windows; len(windows) != 0 {
				t.Errorf("the daemon has taken them over: %v", windows)
			}
			for _, server := range servers {
				if l.admits(nth(1, server), server, 22) {
					t.Errorf("%s gets in", nth(1, server))
				}
				l.enter(nth(2, server), server)
			}
		})
	}
}

// saving is how the README saves a ruleset.
const saving = `{ echo '#!/usr/sbin/nft -f'; echo 'flush ruleset'
  nft list tables | grep -vx 'table inet knockwall' | xargs -rL1 nft list; } > "$0"`

// A ruleset that was saved without the wall is loaded while it stands, and changes
// nothing of it.
func TestARulesetSavedAsTheReadmeSaysDoesNoHarm(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	must(t, err)
	squeezed := strings.Join(strings.Fields(string(readme)), " ")
	if says := strings.Join(strings.Fields(strings.Replace(saving, `"$0"`, "/etc/nftables.conf", 1)), " "); !strings.Contains(squeezed, says) {
		t.Errorf("the README says something else than %s", says)
	}
	l := newLab(t)
	l.serve(22)
	d := l.run(survivalRules("", "10m"))
	l.nft("add", "table", "ip", "mine")
	l.nft("add", "chain", "ip", "mine", "input", "{ type filter hook input priority 0; policy accept; }")
	l.nft("add", "rule", "ip", "mine", "input", "tcp", "dport", "25", "drop")
	mine := l.nft("list", "table", "ip", "mine")
	l.enter(nth(1, server4), server4)

	needs(t, "nft")
	saved := filepath.Join(l.folder, "nftables.conf")
	cmd := exec.Command("sh", "-c", saving, saved)
	must(t, on(l.server, cmd))
	must(t, cmd.Wait())
	l.nft("delete", "table", "ip", "mine")
	l.nft("-f", saved)
	if got := l.nft("list", "table", "ip", "mine"); got != mine {
		t.Errorf("what was saved is now\n%s", got)
	}
	eventually(t, "the wall stands", func() bool { return len(l.kernelWindows()) == 1 })
	if windows := d.status().Windows; len(windows) != 1 {
		t.Errorf("the windows are %v", windows)
	}
	if err := l.onFirstSYN(nth(1, server4), server4); err != nil {
		t.Errorf("who has a window: %v", err)
	}
}
