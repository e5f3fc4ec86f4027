//go:build linux

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

func keptWindows(t *testing.T) []wall.KeptWindow {
	t.Helper()
	kept := func(door, source, opener string, left, age time.Duration) wall.KeptWindow {
		prefix, err := netip.ParsePrefix(source)
		if err != nil {
			t.Fatal(err)
		}
		return wall.KeptWindow{Door: door, Source: packet.Source{Prefix: prefix}, Opener: opener, Left: left, Age: age}
	}
	all := []wall.KeptWindow{
		kept("ssh", "192.0.2.1/32", "", time.Hour, time.Minute),
		kept("web", "192.0.2.0/24", "@other", 24*time.Hour, 0),
		kept("ssh", "2001:db8::1/128", "", time.Minute, 90*24*time.Hour), // opened before the host has booted
		kept("ssh", "fe80::1/128", "", time.Minute, time.Second),
		kept("ssh", "192.0.2.2/32", "", 0, time.Second), // over
	}
	all[3].Source.Link = 7
	return all
}

// load returns what is in a file for a generation.
func (f windowFile) load(table string, generation uint32) (all []wall.KeptWindow, ok bool, err error) {
	ok, err = f.Load(table, func(g uint32) bool { return g == generation }, func(w wall.KeptWindow) { all = append(all, w) })
	return all, ok, err
}

func TestKeptWindowsAreLoaded(t *testing.T) {
	f := windowFile{filepath.Join(t.TempDir(), "windows")}
	if all, ok, err := f.load("knockwall", 1); ok || err != nil || all != nil {
		t.Errorf("without a file: %v, %t, %v", all, ok, err)
	}
	want := keptWindows(t)
	if err := f.Save("knockwall", 47, slices.Values(want)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	for name, test := range map[string]struct {
		table      string
		generation uint32
	}{"another table": {"rampart", 47}, "a longer name": {"knockwall2", 47}, "another generation": {"knockwall", 4}} {
		if all, ok, err := f.load(test.table, test.generation); ok || err != nil || all != nil {
			t.Errorf("%s: %v, %t, %v", name, all, ok, err)
		}
	}
	all, ok, err := f.load("knockwall", 47)
	if !ok || err != nil {
		t.Fatalf("%t, %v", ok, err)
	}
	about := cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < 30*time.Second })
	if diff := cmp.Diff(want[:4], all, about, cmpopts.EquateComparable(packet.Source{})); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
	}
	if err := f.Forget(); err != nil {
		t.Fatal(err)
	}
	if err := f.Forget(); err != nil {
		t.Errorf("once more: %v", err)
	}
	if _, ok, _ := f.load("knockwall", 47); ok {
		t.Error("it is not forgotten")
	}
}

// Of a damaged file nothing is used.
func TestADamagedFileOfWindowsIsNotUsed(t *testing.T) {
	f := windowFile{filepath.Join(t.TempDir(), "windows")}
	if err := f.Save("knockwall", 47, slices.Values(keptWindows(t))); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, text []byte) {
		t.Helper()
		if err := os.WriteFile(f.path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if all, ok, _ := f.load("knockwall", 47); ok || all != nil {
			t.Errorf("%s: %v, %t", what, all, ok)
		}
	}
	for n := range whole {
		check(fmt.Sprintf("the first %d bytes", n), whole[:n])
		changed := bytes.Clone(whole)
		changed[n] ^= 0x10
		check(fmt.Sprintf("byte %d is changed", n), changed)
	}
	check("more behind it", append(bytes.Clone(whole), 0))
}

// Others must not decide which windows there are, nor which file the daemon writes.
func TestAFileOfWindowsThatOthersCanChangeIsNotUsed(t *testing.T) {
	f := windowFile{filepath.Join(t.TempDir(), "windows")}
	save := func() {
		t.Helper()
		if err := f.Save("knockwall", 47, slices.Values(keptWindows(t))); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string) {
		t.Helper()
		if all, ok, err := f.load("knockwall", 47); ok || err == nil || all != nil {
			t.Errorf("%s: %v, %t, %v", what, all, ok, err)
		}
	}
	save()
	if err := os.Chmod(f.path, 0o666); err != nil {
		t.Fatal(err)
	}
	check("everybody can write it")
	save()
	other := f.path + ".other"
	if err := errors.Join(os.Rename(f.path, other), os.Symlink(other, f.path)); err != nil {
		t.Fatal(err)
	}
	check("it is a symbolic link")
	if err := errors.Join(os.Remove(f.path), unix.Mkfifo(f.path, 0o600)); err != nil {
		t.Fatal(err)
	}
	check("it is a pipe")

	precious := filepath.Join(t.TempDir(), "precious")
	if err := errors.Join(os.WriteFile(precious, []byte("precious"), 0o600), os.Symlink(precious, f.path+".new")); err != nil {
		t.Fatal(err)
	}
	save()
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("the file that a symbolic link names is now %q, %v", text, err)
	}
	if _, ok, err := f.load("knockwall", 47); !ok || err != nil {
		t.Errorf("saved in its place: %t, %v", ok, err)
	}
}

// A file that cannot be written leaves the former one, and no part.
func TestAFileOfWindowsIsWrittenWhole(t *testing.T) {
	folder := t.TempDir()
	f := windowFile{filepath.Join(folder, "missing", "windows")}
	if err := f.Save("knockwall", 1, slices.Values(keptWindows(t))); err == nil {
		t.Error("a folder that is missing is no error")
	}
	f = windowFile{filepath.Join(folder, "windows")}
	if err := os.Mkdir(f.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Save("knockwall", 1, slices.Values(keptWindows(t))); err == nil {
		t.Error("a folder in the place of the file is no error")
	}
	if _, err := os.Stat(f.path + ".new"); !os.IsNotExist(err) {
		t.Errorf("a part is left: %v", err)
	}
}
