//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// synced records the names of the files and folders that are synced.
func synced(t *testing.T) *[]string {
	t.Helper()
	var names []string
	Observe(func(f *os.File) { names = append(names, f.Name()) })
	t.Cleanup(func() { Observe(nil) })
	return &names
}

func check(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != text {
		t.Errorf("the file has %q: %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("the file is %v: %v", info, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v: %v", entries, err)
	}
}

func TestCreateReplacesNothing(t *testing.T) {
	names := synced(t)
	path := filepath.Join(t.TempDir(), "file")
	if err := Create(path, []byte("one"), 0o640, os.Getegid()); err != nil {
		t.Fatal(err)
	}
	check(t, path, "one", 0o640)
	if len(*names) != 2 || !slices.Contains(*names, filepath.Dir(path)) {
		t.Errorf("synced were %q", *names)
	}
	if err := Create(path, []byte("two"), 0o600, -1); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the error is %v", err)
	}
	check(t, path, "one", 0o640)
}

func TestReplace(t *testing.T) {
	names := synced(t)
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"one", "two"} {
		*names = nil
		if err := Replace(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, path, text, 0o600)
		if len(*names) != 2 || !slices.Contains(*names, filepath.Dir(path)) {
			t.Errorf("synced were %q", *names)
		}
	}
}

func TestAFolderThatDoesNotExist(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "file")
	for _, err := range []error{Create(path, nil, 0o600, -1), Replace(path, nil, 0o600)} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the error is %v", err)
		}
	}
}
