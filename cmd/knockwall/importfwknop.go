package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/knockwall/knockwall/internal/migrate"
)

// daemonGroup is the group of the daemon, which may read keys.
const daemonGroup = "knockwall"

// importFwknop turns an access.conf into a rule file, and writes the keys to a folder if one
// is named.
func importFwknop(name string, text []byte, folder string) ([]byte, error) {
	var files fs.FS // none for stdin
	if name != "stdin" {
		var err error
		if name, err = filepath.Abs(name); err != nil {
			return nil, err
		}
		files = os.DirFS("/")
	}
	if folder == "" {
		rules, _, err := migrate.ImportFwknop(name, text, files, migrate.SecretsFolder)
		return rules, err
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	rules, keys, err := migrate.ImportFwknop(name, text, files, folder)
	if err != nil {
		return nil, err
	}
	return rules, writeKeys(folder, keys)
}

// writeKeys writes keys to files of a folder, which it makes if it does not exist. The files
// belong to root and can be read by the daemon's group, or by the user alone if this process
// is not root's or there is no such group. It changes no existing file, and removes its own
// after an error.
func writeKeys(folder string, keys []migrate.KeyFile) (err error) {
	gid, mode, folderMode := -1, fs.FileMode(0o600), fs.FileMode(0o700)
	if group, err := user.LookupGroup(daemonGroup); err == nil && os.Geteuid() == 0 {
		if gid, err = strconv.Atoi(group.Gid); err != nil {
			return err
		}
		mode, folderMode = 0o640, 0o750
	}
	switch err := os.Mkdir(folder, folderMode); {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return err
	case gid >= 0:
		if err := os.Chown(folder, 0, gid); err != nil {
			return err
		}
	}
	var written []string
	defer func() {
		if err != nil {
			for _, path := range written {
				_ = os.Remove(path)
			}
		}
	}()
	for _, k := range keys {
		path := filepath.Join(folder, k.Name)
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, k.Text) {
			continue // of an earlier import
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s has another key: remove it, or name another folder with --secrets", path)
		}
		if err != nil {
			return err
		}
		written = append(written, path)
		if gid >= 0 {
			err = f.Chown(0, gid)
		}
		if err == nil {
			err = f.Chmod(mode)
		}
		if err == nil {
			_, err = f.Write(k.Text)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
