//go:build unix

// Package durabletest shows what a disk would contain after a power failure.
package durabletest

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/knockwall/knockwall/internal/durable"
)

// Disk records what was synced, by inode: the content of each file, and for each folder
// the inodes behind its names.
type Disk struct {
	t testing.TB

	mu      sync.Mutex
	content map[uint64]string
	names   map[uint64]map[string]uint64
}

// Watch records syncs until the test ends. Tests that use it must not run in parallel.
func Watch(t testing.TB) *Disk {
	d := &Disk{t: t, content: map[uint64]string{}, names: map[uint64]map[string]uint64{}}
	durable.Observe(d.synced)
	t.Cleanup(func() { durable.Observe(nil) })
	return d
}

func (d *Disk) synced(f *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := f.Stat()
	if err != nil {
		d.t.Error(err)
		return
	}
	if !info.IsDir() {
		d.content[inode(info)] = d.read(f.Name(), f, info.Size())
		return
	}
	entries, err := os.ReadDir(f.Name())
	if err != nil {
		d.t.Error(err)
	}
	names := map[string]uint64{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			names[e.Name()] = inode(info)
		}
	}
	d.names[inode(info)] = names
}

// read returns the content of a file, even if f is open for writing only.
func (d *Disk) read(name string, f *os.File, size int64) string {
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), b); err == nil {
		return string(b)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		d.t.Error(err)
	}
	return string(b)
}

// Has checks that a file or folder is on the disk under its name, and that a file has its
// current content there.
func (d *Disk) Has(path string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		d.t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if d.names[inode(folder)][filepath.Base(path)] != inode(info) {
		d.t.Errorf("after a power failure %s is another file, or missing: its folder was not synced", path)
	}
	if info.IsDir() {
		return
	}
	now, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if then, ok := d.content[inode(info)]; !ok || then != string(now) {
		d.t.Errorf("after a power failure %s has %.200q, not %.200q: it was not synced", path, then, now)
	}
}
