//go:build linux

package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/knockwall/knockwall/ruleset"
)

// stores are what the daemon remembers on disk: which one-time passwords and knocks were
// used, which commands are due, and, while no daemon runs, the windows. A service has them in its state folder
// ($STATE_DIRECTORY), which survives a reboot. Any other daemon has them beside its control
// socket.
type stores struct {
	used, due *lateStore
	windows   windowFile
}

// stateBase returns the prefix of the paths of all files that the daemon keeps.
func stateBase(controlPath string) string {
	if folder := os.Getenv("STATE_DIRECTORY"); folder != "" {
		return folder + string(filepath.Separator)
	}
	return controlPath + "."
}

// newStores returns stores that report damage to their files to complain.
func newStores(controlPath string, complain func(string)) *stores {
	base := stateBase(controlPath)
	return &stores{
		used: &lateStore{path: base + "used", damaged: func(path, found string) {
			complain(fmt.Sprintf("%s was damaged (%s), and some used passwords and knocks may be missing from it. One-time passwords, and knocks of a step before or after the present one, open nothing until all that may have been used have expired", path, found))
		}},
		due: &lateStore{path: base + "due", damaged: func(path, found string) {
			complain(fmt.Sprintf("%s was damaged (%s): the on_close command of an earlier window may be forgotten. Check whether you have to run it by hand", path, found))
		}},
		windows: windowFile{base + "windows"},
	}
}

// open opens the files that exist, and makes those that a configuration needs.
func (s *stores) open(c *ruleset.Config) error {
	return errors.Join(s.used.open(c.NeedsReplayMemory()), s.due.open(c.HasCommands()))
}

func (s *stores) close() {
	s.used.close()
	s.due.close()
}
