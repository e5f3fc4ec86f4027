package systemd

import (
	"os"
	"path/filepath"
)

// unitFolders are where unit files of the system are: systemd.unit(5).
var unitFolders = []string{
	"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
}

// HasUnit reports whether systemd runs on this host (sd_booted(3)), and has a unit of this
// name.
func HasUnit(name string) bool { return hasUnit("/", name) }

func hasUnit(root, name string) bool {
	if info, err := os.Lstat(filepath.Join(root, "run/systemd/system")); err != nil || !info.IsDir() {
		return false
	}
	for _, folder := range unitFolders {
		if _, err := os.Stat(filepath.Join(root, folder, name)); err == nil {
			return true
		}
	}
	return false
}
