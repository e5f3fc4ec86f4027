package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAUnitThatMayDeleteTheWallIsFoundWhereItIsEnabled(t *testing.T) {
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
	link("nftables.service", "/nowhere/nftables.service") // the unit was removed
	if found := enabledFlusher(); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	if err := errors.Join(os.WriteFile(unit, nil, 0o600), os.Remove(filepath.Join(wants, "nftables.service"))); err != nil {
		t.Fatal(err)
	}
	link("ufw.service", unit) // it changes only its own chains
	if found := enabledFlusher(); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	link("nftables.service", unit)
	if found := enabledFlusher(); len(found) != 1 || !strings.Contains(found[0].Problem, "nftables.service is enabled") {
		t.Errorf("found %+v", found)
	}
}
