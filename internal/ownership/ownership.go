// Package ownership checks whether other users can change a file, as ssh does. A user who
// can write a rule file decides who gets in and which commands run.
//
// It checks the file, the targets of symbolic links on its path, and every folder from /
// on, as a user who can write such a folder can replace the file. Each must belong to
// root, the daemon's user or the caller (or to the caller of sudo). Neither its group nor
// others may write it, except that the daemon's group may write a list. An ACL that
// permits writing shows in the group bits, which are its mask. A sticky folder, such as
// /tmp, may be on the path, as users can remove only their own files from it.
//
// The check protects a host with doors, so it runs on Linux only. Clients on other systems
// admit nobody.
package ownership

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// DaemonUser is the user of the daemon in knockwall.service.
const DaemonUser = "knockwall"

// Kind says how the daemon uses a path.
type Kind int

const (
	// File is a file that the daemon only reads.
	File Kind = iota
	// List is a file that the daemon also writes, possibly with the rights of its group.
	List
	// Folder is a folder whose files are all read, so that other users must not add one.
	Folder
)

// Check returns an error, with its cure, if other users can change the file or folder at
// path. It does not check anything else, such as a pipe of the caller's shell.
func Check(path string, kind Kind) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	return check(path, kind)
}

// Mode returns the permission bits of a file. On Windows it returns 0, as Windows has no
// such bits and package os invents them.
func Mode(info fs.FileInfo) fs.FileMode {
	if runtime.GOOS == "windows" {
		return 0
	}
	return info.Mode().Perm()
}
