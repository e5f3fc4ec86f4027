package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/ownership"
)

// daemonsAccess returns the group and the permissions for a file that only root and the
// daemon may read. The group is that of the daemon's user, which has the user's name. Where
// there is none, or without root, the group is -1: the file is for its owner alone.
func daemonsAccess() (group int, mode fs.FileMode) {
	daemon, err := user.LookupGroup(ownership.DaemonUser)
	if err != nil || os.Geteuid() != 0 {
		return -1, 0o600
	}
	group, err = strconv.Atoi(daemon.Gid)
	if err != nil {
		return -1, 0o600
	}
	return group, 0o640
}

// createForDaemon writes a new file for the daemon, never over another one. It makes the
// folder if there is none.
func createForDaemon(path, text string) error {
	group, mode := daemonsAccess()
	folder := filepath.Dir(path)
	if err := os.Mkdir(folder, 0o700); err == nil {
		search := mode >> 2 & 0o111 // whoever can read the file can enter
		err = os.Chmod(folder, mode|search)
		if group >= 0 {
			err = errors.Join(err, os.Chown(folder, -1, group))
		}
		if runtime.GOOS != "windows" { // which cannot sync a folder
			err = errors.Join(err, durable.SyncFolder(filepath.Dir(folder)))
		}
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return withSudo(err)
	}
	return withSudo(durable.Create(path, []byte(text), mode, group))
}

// withSudo adds the cure to an error that says that permissions are missing.
func withSudo(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() > 0 { // -1 on Windows
		return fmt.Errorf("%w. Run it with sudo", err)
	}
	return err
}
