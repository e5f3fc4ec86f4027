// Package ownership finds out whether others can change a file, as ssh does: whoever can
// write a rule file decides who gets in, and what is run.
//
// A file is looked at, what symbolic links on its path lead to, and every folder from /
// on, as whoever can write one of these can put another file in its place. Each of them
// must belong to root, the daemon's user or the caller (under sudo also to who called it),
// and neither its group nor others may write it; but the daemon's group may write a list.
// An ACL that lets somebody write shows in the bits of the group, which are its mask. Of a
// folder that is sticky, such as /tmp, others can take away only what is theirs, so that it
// may lie on the path.
//
// All of this protects a host with doors, and so happens on Linux only. A client on another
// system lets nobody in, whatever its files say.
package ownership

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// DaemonUser is who the daemon runs as, where it is a service (knockwall.service).
const DaemonUser = "knockwall"

// Kind is what a path is for.
type Kind int

const (
	// File is read, and changed by nobody.
	File Kind = iota
	// List is a file that the daemon changes, perhaps by its group.
	List
	// Folder is one of which all files are read, so that nobody may add one.
	Folder
)

// Check returns an error, with its cure, if others can change what is at path. What is
// neither a file nor a folder, such as a pipe of the caller's shell, it does not look at.
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

// Mode returns the permission bits of a file, and none on Windows. Windows has no such
// bits, and package os makes up the same ones for every file.
func Mode(info fs.FileInfo) fs.FileMode {
	if runtime.GOOS == "windows" {
		return 0
	}
	return info.Mode().Perm()
}
