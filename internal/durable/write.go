package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Create writes a new file with these permissions, which appears complete and survives a
// power failure. group is the ID of its group, or -1 for that of the process. The error
// wraps [fs.ErrExist] if the file exists.
func Create(path string, text []byte, mode fs.FileMode, group int) error {
	temporary, err := writeBeside(path, text, mode, group)
	if err != nil {
		return err
	}
	err = os.Link(temporary, path) // unlike rename, link replaces nothing
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		err = &fs.PathError{Op: "create", Path: path, Err: link.Err}
	}
	return errors.Join(err, os.Remove(temporary), syncNames(path))
}

// Replace writes a file with these permissions, in place of the one at path if there is one.
// At any time the path leads to one or the other. A symbolic link stays one.
func Replace(path string, text []byte, mode fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	temporary, err := writeBeside(path, text, mode, -1)
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncNames(path)
}

// writeBeside writes a temporary file in the folder of path.
func writeBeside(path string, text []byte, mode fs.FileMode, group int) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil && group >= 0 {
		err = f.Chown(-1, group)
	}
	err = errors.Join(err, f.Chmod(mode), Sync(f), f.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// syncNames syncs the folder of path. Windows cannot, and has no need to.
func syncNames(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return SyncFolder(filepath.Dir(path))
}
