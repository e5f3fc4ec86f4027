package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnitsThatMayDeleteTheWallAreFoundWhereTheyAreEnabled(t *testing.T) {
	before := systemdFolder
	t.Cleanup(func() { systemdFolder = before })
	systemdFolder = t.TempDir()
	unit := filepath.Join(systemdFolder, "nftables.service")
	wants := filepath.Join(systemdFolder, "sysinit.target.wants")
	link := func(name, to string) {
		if err := os.Symlink(to, filepath.Join(wants, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(wants, 0o700); err != nil {
		t.Fatal(err)
	}
	link("ufw.service", "/nowhere/ufw.service") // the unit was removed
	if found := enabledFlushers(); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	if err := os.WriteFile(unit, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link("nftables.service", unit)
	if found := enabledFlushers(); len(found) != 1 || !strings.Contains(found[0].Problem, "nftables.service is enabled") {
		t.Errorf("found %+v", found)
	}
}
