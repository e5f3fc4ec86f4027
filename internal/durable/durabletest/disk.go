// Package durabletest shows what a disk would have after the loss of power.
package durabletest

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/knockwall/knockwall/internal/durable"
)

// Disk knows what was synced, by inode: the content of each file, and the inodes that the
// names in each folder stand for.
type Disk struct {
	t testing.TB

	mu      sync.Mutex
	content map[uint64]string
	names   map[uint64]map[string]uint64
}

// Watch notes what is synced from now on, until the test ends. Tests that use it do not
// run in parallel.
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

// read reads a file that may be open for writing only.
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

// Has wants a file, or a folder, to be on the disk under its name, and a file as it is now.
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
		d.t.Errorf("after the loss of power %s is another file, or none: its folder was not synced", path)
	}
	if info.IsDir() {
		return
	}
	now, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if then, ok := d.content[inode(info)]; !ok || then != string(now) {
		d.t.Errorf("after the loss of power %s has %.200q, and not %.200q: it was not synced", path, then, now)
	}
}
