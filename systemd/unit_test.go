//go:build linux

package systemd

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAUnitIsThereWhereSystemdRunsAndHasItsFile(t *testing.T) {
	root := t.TempDir()
	put := func(path string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const unit = "knockwall.service"
	put("usr/lib/systemd/system/" + unit)
	if hasUnit(root, unit) {
		t.Error("systemd does not run, and could start the unit")
	}
	put("run/systemd/system/other.service")
	if !hasUnit(root, unit) || !hasUnit(root, "other.service") {
		t.Error("systemd runs, and does not know the units")
	}
	if hasUnit(root, "third.service") {
		t.Error("systemd knows a unit without a file")
	}
}
