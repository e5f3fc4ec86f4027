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

// Rules that were in force are kept, so that there is something to begin with when the
// rule files cannot be used: they are broken, or the daemon may not read them.
//
// Kept are the rule files, and nothing that they name. A secret stays in the one place
// where its owner has put it: whoever takes it away there, or gives it other rights,
// means that it opens no door any more. A list of one-time sequences is what it is
// because its used lines are crossed out, and a copy would open by them again. What
// cannot be read of these is missing, then: the doors stand, with their ports shut, and
// open by their other ways.

// keptPath is a file in a folder of kept rules, and says of which rule files they are.
const keptPath = "path"

// ErrNoneKept is why rules cannot be recalled where none were kept.
var ErrNoneKept = errors.New("no rules are kept")

// Save keeps the rule files, as they were when they were read, in a folder for
// [Recall]. What is in the folder is replaced, at once or not at all, and is on stable
// storage when Save returns.
func (l *Loaded) Save(folder string) (err error) {
	removeAll(folder + ".*") // of who was killed meanwhile
	next, err := os.MkdirTemp(filepath.Dir(folder), filepath.Base(folder)+".*")
	if err != nil {
		return fmt.Errorf("making a folder for the rule files: %w", err)
	}
	defer func() { // or what was in the folder before
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

// Recall reads what [Loaded.Save] has kept in a folder of the rule files at path. A
// secret or list that they name and that cannot be used is a warning, and missing.
// Where nothing was kept, or by another user, the error is [ErrNoneKept].
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
		return nil, fmt.Errorf("%w of %s: those in %s are of others", ErrNoneKept, path, folder)
	}
	l := load(folder, makeshift)
	l.path = path
	return l, nil
}

// Differs reports whether the rule files are others than those that were read. The
// error says why they cannot be read.
func (l *Loaded) Differs() (bool, error) {
	names, err := ruleFiles(l.path)
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
			return name != l.path, nil // a pipe, whose text is gone
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

// texts are those of the rule files, in order.
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
		_ = os.RemoveAll(name) // which costs no more than its room
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

// exchange puts a folder in the place of another, if there is one, which has its name
// then, or is gone on file systems that cannot do so.
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
