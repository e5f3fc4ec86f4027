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

// Disk knows what was synced: of each file its content, by inode, and of each folder the
// files that its names stand for.
type Disk struct {
	t testing.TB

	mu      sync.Mutex
	content map[uint64]string
	names   map[string]uint64 // by path
}

// Watch notes what is synced from now on, until the test ends. Tests that use it do not
// run in parallel.
func Watch(t testing.TB) *Disk {
	d := &Disk{t: t, content: map[uint64]string{}, names: map[string]uint64{}}
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
	for path := range d.names {
		if filepath.Dir(path) == filepath.Clean(f.Name()) {
			delete(d.names, path)
		}
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			d.names[filepath.Join(f.Name(), e.Name())] = inode(info)
		}
	}
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

// Has wants a file to be on the disk as it is now, under its name.
func (d *Disk) Has(path string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Lstat(path)
	if err != nil {
		d.t.Fatal(err)
	}
	now, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if d.names[path] != inode(info) {
		d.t.Errorf("after the loss of power %s is another file, or none: its folder was not synced", path)
	}
	if then, ok := d.content[inode(info)]; !ok || then != string(now) {
		d.t.Errorf("after the loss of power %s has %.200q, and not %.200q: it was not synced", path, then, now)
	}
}
