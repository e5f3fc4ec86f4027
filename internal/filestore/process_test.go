package filestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/filestore"
)

// roleVariable is the environment variable that makes a test binary use a store instead
// of running the tests. Its value is the role. The first argument names the store.
const roleVariable = "KNOCKWALL_LEDGER_ROLE"

var roles = map[string]func(*filestore.Store) error{
	"changer": changeForEver,
	"full":    fillTheDisk,
}

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	l, err := filestore.Open(os.Args[1])
	if err == nil {
		err = roles[role](l)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// start starts a process with a role. It is killed at the end of the test.
func start(t *testing.T, role, path string, arguments ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	child := exec.Command(os.Args[0], append([]string{path}, arguments...)...)
	child.Env = append(os.Environ(), roleVariable+"="+role)
	child.Stderr = os.Stderr
	said, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	return child, bufio.NewScanner(said)
}

// changers is how many goroutines change a store at once. standing is how many entries of
// each stay in it, so that it is compacted now and then.
const (
	changers = 4
	standing = 5
)

// long returns a long entry with a name.
func long(name string) string {
	sum := crc32.ChecksumIEEE([]byte(name))
	return name + strings.Repeat(" and so on", int(sum%500))
}

// changeForEver adds and removes entries, each named by its changer and a number. It
// writes "+name" when an entry was added, "?name" when it may be gone from now on, and
// "-name" when it is gone. A pipe takes each line whole or not at all.
func changeForEver(l *filestore.Store) error {
	failed := make(chan error)
	for changer := range changers {
		name := func(i int) string { return fmt.Sprintf("%s %d %d", os.Args[2], changer, i) }
		go func() {
			for i := 0; ; i++ {
				if err := l.Add(long(name(i))); err != nil {
					failed <- err
				}
				fmt.Printf("+%s\n", name(i))
				if i < standing {
					continue
				}
				fmt.Printf("?%s\n", name(i-standing))
				if err := l.Remove(long(name(i - standing))); err != nil {
					failed <- err
				}
				fmt.Printf("-%s\n", name(i-standing))
			}
		}()
	}
	return <-failed
}

// However the process is killed, added entries are there, and removed ones are not.
func TestAProcessThatIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	there := map[string]bool{} // all entries that were ever reported to be in it
	for round := range 8 {
		child, said := start(t, "changer", path, strconv.Itoa(round))
		if round%2 == 0 {
			go killIn(t.Context(), child, path+".new") // in the middle of a compaction
		}
		open := map[string]bool{}
		for patience := 1 + rand.IntN(1000); said.Scan(); patience-- {
			name := said.Text()[1:]
			switch said.Text()[0] {
			case '+':
				there[name] = true
			case '?':
				open[name] = true
			case '-':
				there[name] = false
				delete(open, name)
			}
			if patience == 0 && round%2 == 1 {
				_ = child.Process.Kill()
			}
		}
		err := child.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || !strings.Contains(exit.Error(), "killed") {
			t.Fatalf("it was not killed: %v", err)
		}
		l, err := filestore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		unsaid := l.Len()
		for name, want := range there {
			got := l.Has(long(name))
			if got != want && !open[name] {
				t.Errorf("round %d: %s is there: %t, want %t", round, name, got, want)
			}
			if there[name] = got; got {
				unsaid--
			}
		}
		if most := (round + 1) * changers; unsaid > most { // the process had no time to report it
			t.Errorf("round %d: %d entries of which nobody said that they were added, want at most %d", round, unsaid, most)
		}
		shut(t, l)
	}
}

// killIn kills a process while a file exists.
func killIn(ctx context.Context, child *exec.Cmd, path string) {
	for ctx.Err() == nil {
		if _, err := os.Lstat(path); err == nil {
			_ = child.Process.Kill()
			return
		}
	}
}

// Nobody else can open the store, even while a compacted file replaces the old one.
func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	child, said := start(t, "changer", path, "x")
	if !said.Scan() {
		t.Fatal("it says nothing")
	}
	var listening sync.WaitGroup
	listening.Go(func() {
		for said.Scan() { // otherwise the child would wait for the test
		}
	})
	var last uint64
	for replaced := 0; replaced < 4; {
		l, err := filestore.Open(path)
		if err == nil {
			shut(t, l)
		}
		fails(t, err, path, "another knockwall uses the file")
		var file unix.Stat_t
		if err := unix.Stat(path, &file); err != nil {
			t.Fatal(err)
		}
		if file.Ino != last {
			last = file.Ino
			replaced++
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	listening.Wait()
	_ = child.Wait()
	shut(t, open(t, path))
}

func TestOnceInAProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	_, err := filestore.Open(path)
	fails(t, err, path, "another knockwall uses the file")
	shut(t, l)
	open(t, path)
}

// fillTheDisk adds entries while files are limited to a few bytes, and reports the
// errors.
func fillTheDisk(l *filestore.Store) error {
	signal.Ignore(unix.SIGXFSZ)
	room := func(bytes uint64) error {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		limit.Cur = bytes
		return unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
	}
	read := func() string {
		content, err := os.ReadFile(os.Args[1])
		if err != nil {
			return err.Error()
		}
		return string(content)
	}
	if err := l.Add("before"); err != nil {
		return err
	}
	size := uint64(len(read()))
	for _, full := range []struct {
		room   uint64
		change func(string) error
		entry  string
	}{
		{room: size + 2, change: l.Add, entry: "comes half-way"},
		{room: size, change: l.Add, entry: "takes the place of the end"},
		{room: size + 2, change: l.Remove, entry: "before"},
	} {
		if err := room(full.room); err != nil {
			return err
		}
		if err := full.change(full.entry); !errors.Is(err, unix.EFBIG) {
			return fmt.Errorf("on a full disk: %v", err)
		}
		if l.Has("comes half-way") || l.Has("takes the place of the end") || !l.Has("before") || read() != filestore.Encode("+before") {
			return fmt.Errorf("a full disk leaves %q in memory, and %q in the file", l.All(), read())
		}
		if err := room(unix.RLIM_INFINITY); err != nil {
			return err
		}
	}
	if err := errors.Join(l.Add("between"), l.Remove("between"), l.Add("after"), l.Close()); err != nil {
		return err
	}
	// A disk without room for compaction is no reason not to open the store.
	if err := room(5); err != nil {
		return err
	}
	l, err := filestore.Open(os.Args[1])
	if err != nil {
		return err
	}
	if _, err := os.Lstat(os.Args[1] + ".new"); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("half a file is left on a full disk: %v", err)
	}
	if !l.Has("after") || l.Has("between") {
		return fmt.Errorf("on a full disk it has %q", l.All())
	}
	return l.Close()
}

// A full disk loses no entry of the store. Later entries are not mixed up with those that
// did not fit.
func TestAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	child, said := start(t, "full", path)
	for said.Scan() {
		t.Log(said.Text())
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, path), filestore.Encode("+before", "+between", "-between", "+after"); got != want {
		t.Errorf("the file has %q, want %q", got, want)
	}
	expect(t, open(t, path), "before", "after")
}
