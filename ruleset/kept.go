package ruleset

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/knockwall/knockwall/internal/durable"
)

// The daemon keeps a copy of the rules in force. It starts with the copy when it cannot use
// the rule files, because they have errors or it may not read them.
//
// It keeps the rule files only, and not the files that they name. An administrator who
// removes a secret or changes its permissions means that it opens no door any more, and a
// copy would still open the door. A list of one-time sequences marks its used lines, and a
// copy would accept them again. If such a file cannot be read, its doors keep their ports
// closed and open by their other methods only.

// keptPath is a file in a folder of kept rules. It has the path of the original rule files.
const keptPath = "path"

// ErrNoneKept says that a folder has no kept rules of this user and of these rule files.
var ErrNoneKept = errors.New("no rules are kept")

// Save copies the rule files, as they were when they were read, to a folder for [Recall].
// It replaces the content of the folder in one step, where the file system can. The copy is
// on stable storage when Save returns.
func (l *Loaded) Save(folder string) (err error) {
	removeAll(folder + ".*") // left by a process that was killed
	next, err := os.MkdirTemp(filepath.Dir(folder), filepath.Base(folder)+".*")
	if err != nil {
		return fmt.Errorf("making a folder for the rule files: %w", err)
	}
	defer func() { // next has the former content of the folder after the exchange
		err = errors.Join(err, os.RemoveAll(next))
	}()
	files := map[string][]byte{keptPath: []byte(absolute(l.path))}
	for i, text := range l.texts() {
		files[fmt.Sprintf("%04d.hcl", i)] = text
	}
	for name, text := range files {
		if err := writeSynced(filepath.Join(next, name), text); err != nil {
			return fmt.Errorf("copying the rule files: %w", err)
		}
	}
	if err := durable.SyncFolder(next); err != nil {
		return fmt.Errorf("copying the rule files: %w", err)
	}
	if err := exchange(next, folder); err != nil {
		return fmt.Errorf("replacing the copied rule files: %w", err)
	}
	return durable.SyncFolder(filepath.Dir(folder))
}

// Recall reads the copy that [Loaded.Save] made of the rule files at path. A secret or
// list that cannot be used is a warning, and missing from the configuration. The error is
// [ErrNoneKept] if the folder does not exist, is not this user's own, or has a copy of
// other rule files.
func Recall(folder, path string) (*Loaded, error) {
	info, err := os.Lstat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoneKept
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !isOwn(info) {
		return nil, fmt.Errorf("%w: %s is not this user's own folder", ErrNoneKept, folder)
	}
	of, err := readBounded(filepath.Join(folder, keptPath))
	if err != nil {
		return nil, err
	}
	if string(of) != absolute(path) {
		return nil, fmt.Errorf("%w of %s: those in %s are of other rule files", ErrNoneKept, path, folder)
	}
	return load(folder, path, makeshift), nil
}

// Differs reports whether the rule files have changed since they were read. The error says
// why they cannot be read.
func (l *Loaded) Differs() (bool, error) {
	names, _, err := entries(l.path)
	if err != nil {
		return true, err
	}
	texts := l.texts()
	for i, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return true, err
		}
		if !info.Mode().IsRegular() {
			return name != l.path, nil // a pipe cannot be read twice
		}
		text, err := readBounded(name)
		if err != nil {
			return true, err
		}
		if i >= len(texts) || string(text) != string(texts[i]) {
			return true, nil
		}
	}
	return len(names) != len(texts), nil
}

// texts returns the texts of the rule files, in the order of their names.
func (l *Loaded) texts() (texts [][]byte) {
	for _, name := range slices.Sorted(maps.Keys(l.files)) {
		texts = append(texts, l.files[name].Bytes)
	}
	return texts
}

func absolute(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

func removeAll(pattern string) {
	old, _ := filepath.Glob(pattern)
	for _, name := range old {
		_ = os.RemoveAll(name) // what stays costs only disk space
	}
}

func writeSynced(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, durable.Sync(f), f.Close())
}

// exchange swaps two folders. If folder does not exist, or if the file system cannot swap,
// it removes folder and renames next to it.
func exchange(next, folder string) error {
	err := swap(next, folder)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	return os.Rename(next, folder)
}
