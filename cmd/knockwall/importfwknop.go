package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/knockwall/knockwall/internal/migrate"
)

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

// writeKeys writes keys to files of a folder for the daemon. It makes the folder if there is
// none. It changes no existing file, and removes its own after an error.
func writeKeys(folder string, keys []migrate.KeyFile) (err error) {
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
		err := createForDaemon(path, string(k.Text))
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s has another key: remove it, or name another folder with --secrets", path)
		}
		if err != nil {
			return err
		}
		written = append(written, path)
	}
	return nil
}
