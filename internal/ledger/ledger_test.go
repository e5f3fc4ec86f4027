package ledger_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/ledger"
)

// open opens a ledger until the test ends.
func open(t testing.TB, path string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, l) })
	return l
}

func shut(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func add(t testing.TB, l *ledger.Ledger, entries ...string) {
	t.Helper()
	for _, entry := range entries {
		if err := l.Add(entry); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t testing.TB, l *ledger.Ledger, entries ...string) {
	t.Helper()
	for _, entry := range entries {
		if err := l.Remove(entry); err != nil {
			t.Fatal(err)
		}
	}
}

func expect(t testing.TB, l *ledger.Ledger, want ...string) {
	t.Helper()
	if got := l.All(); !slices.Equal(got, want) {
		t.Errorf("it has %.200q, want %.200q", got, want)
	}
	if l.Len() != len(want) {
		t.Errorf("its length is %d, want %d", l.Len(), len(want))
	}
	for _, entry := range want {
		if !l.Has(entry) {
			t.Errorf("%.100q is not in it", entry)
		}
	}
}

// fails wants an error that has all of these in it.
func fails(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}

func TestWhatWasAddedIsThereAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	expect(t, l)
	add(t, l, "b", "a", "+c", "-d", " e\r", "\x00\xff")
	remove(t, l, "a")
	want := []string{"b", "+c", "-d", " e\r", "\x00\xff"}
	expect(t, l, want...)
	if l.Has("a") || l.Has("") {
		t.Error("it has what was removed, or never added")
	}
	shut(t, l)
	l = open(t, path)
	expect(t, l, want...)
	add(t, l, "a")
	expect(t, l, append(want, "a")...)
}

func TestARecordIsALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	for _, step := range []struct {
		do   func(string) error
		file string
	}{
		{l.Add, "+x\n"},
		{l.Add, "+x\n"},
		{l.Remove, "+x\n-x\n"},
		{l.Remove, "+x\n-x\n"},
		{l.Add, "+x\n-x\n+x\n"},
	} {
		if err := step.do("x"); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != step.file {
			t.Errorf("the file has %q, want %q", got, step.file)
		}
	}
}

func TestOrderIsThatOfTheLastAdding(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	add(t, l, "a", "b", "c", "a")
	expect(t, l, "a", "b", "c")
	remove(t, l, "a")
	add(t, l, "a")
	expect(t, l, "b", "c", "a")
	shut(t, l)
	expect(t, open(t, path), "b", "c", "a")
}

func TestEntriesHaveBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	fails(t, l.Add(""), path, "empty")
	fails(t, l.Add("a\nb"), path, "newline", `"a\nb"`)
	fails(t, l.Add("a\n"), path, "newline")
	fails(t, l.Add(strings.Repeat("x", ledger.MaxEntry+1)), path, "65537 bytes, more than 65536")
	if got := read(t, path); got != "" {
		t.Errorf("the file has %q", got)
	}
	longest := strings.Repeat("x", ledger.MaxEntry)
	add(t, l, longest)
	shut(t, l)
	expect(t, open(t, path), longest)
}

func TestOnlyTheUserReadsTheFiles(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "ledger")
	private := func(when string) {
		t.Helper()
		files, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != 2 {
			t.Errorf("%s: the folder has %v", when, files)
		}
		for _, file := range files {
			info, err := file.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 {
				t.Errorf("%s: %s is %v", when, file.Name(), info.Mode())
			}
		}
	}
	defer unix.Umask(unix.Umask(0))
	l := open(t, path)
	private("at first")
	add(t, l, "x")
	remove(t, l, "x")
	shut(t, l)
	open(t, path)
	if read(t, path) != "" {
		t.Fatal("it was not compacted")
	}
	private("when it is compacted")
}

// A program that the daemon starts has none of the files.
func TestFilesAreClosedForOtherPrograms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, "+x\n-x\n") // to be compacted
	open(t, path)
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, descriptor := range descriptors {
		name, err := os.Readlink("/proc/self/fd/" + descriptor.Name())
		if err != nil || !strings.HasPrefix(name, filepath.Dir(path)) {
			continue
		}
		found++
		info := read(t, "/proc/self/fdinfo/"+descriptor.Name())
		var flags int
		if _, err := fmt.Sscanf(info[strings.Index(info, "flags:"):], "flags: %o", &flags); err != nil {
			t.Fatal(err)
		}
		if flags&unix.O_CLOEXEC == 0 {
			t.Errorf("%s is open for other programs", name)
		}
	}
	if found != 3 {
		t.Errorf("%d files are open, want the ledger, its lock and its folder", found)
	}
}

func TestOnlyAFileIsALedger(t *testing.T) {
	for _, suffix := range []string{"", ".lock"} {
		for kind, make := range map[string]func(path string) error{
			"is a symbolic link": func(path string) error { return os.Symlink("elsewhere", path) },
			"is p":               func(path string) error { return unix.Mkfifo(path, 0o600) },
			"is a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		} {
			path := filepath.Join(t.TempDir(), "ledger")
			if err := make(path + suffix); err != nil {
				t.Fatal(err)
			}
			_, err := ledger.Open(path)
			fails(t, err, path+suffix, kind)
			if _, err := os.Lstat(filepath.Join(filepath.Dir(path), "elsewhere")); err == nil {
				t.Errorf("the link of %q was followed", suffix)
			}
		}
	}
}

// What others can write may be anything.
func TestNobodyElseWritesALedger(t *testing.T) {
	for _, suffix := range []string{"", ".lock"} {
		for _, mode := range []fs.FileMode{0o620, 0o602, 0o666} {
			path := filepath.Join(t.TempDir(), "ledger")
			shut(t, open(t, path))
			if err := os.Chmod(path+suffix, mode); err != nil {
				t.Fatal(err)
			}
			_, err := ledger.Open(path)
			fails(t, err, "can write "+path+suffix, "run chmod g")
		}
	}
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := ledger.Open(filepath.Join(folder, "ledger"))
	fails(t, err, "everybody on this host can write "+folder+":")
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file to somebody else")
	}
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, "+a\n")
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "")
	_, err = ledger.Open(path)
	fails(t, err, path+" is the user 12345's")
}

func TestTheFolderHasToBeThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "ledger")
	_, err := ledger.Open(path)
	fails(t, err, path, "no such file")
	if _, err := os.Lstat(filepath.Dir(path)); err == nil {
		t.Error("the folder was made")
	}
}

func TestATornRecordNeverHappened(t *testing.T) {
	for torn, want := range map[string][]string{
		"+":                                    {"a", "b"},
		"+c":                                   {"a", "b"},
		"-":                                    {"a", "b"},
		"-a":                                   {"a", "b"},
		"\x00\x00":                             {"a", "b"},
		"neither of the two":                   {"a", "b"},
		strings.Repeat("+", 2*ledger.MaxEntry): {"a", "b"},
	} {
		path := filepath.Join(t.TempDir(), "ledger")
		write(t, path, "+a\n+b\n"+torn)
		l := open(t, path)
		expect(t, l, want...)
		if got := read(t, path); got != "+a\n+b\n" {
			t.Errorf("after %.20q the file has %.50q", torn, got)
		}
		add(t, l, "c")
		shut(t, l)
		expect(t, open(t, path), append(want, "c")...)
	}
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, "+a") // and there is nothing before it
	expect(t, open(t, path))
}

func TestALineThatIsNoRecord(t *testing.T) {
	for content, want := range map[string]string{
		"+a\nb\n+c\n": "line 2 of ",
		"\n":          "line 1 of ",
		"+a\n+b\n\n":  "line 3 of ",
		"+a\n +b\n":   "line 2 of ",
		"a\n+torn":    "line 1 of ",
		"+a\n+\n":     "line 2 of ",
		"-\n":         "line 1 of ",
		"\x00\n":      "line 1 of ",
		"+a\n+" + strings.Repeat("x", ledger.MaxEntry+1) + "\n": "line 2 of ",
	} {
		path := filepath.Join(t.TempDir(), "ledger")
		write(t, path, content)
		for range 2 { // the lock is free again
			_, err := ledger.Open(path)
			fails(t, err, want+path)
		}
		if read(t, path) != content {
			t.Errorf("%.20q was changed", content)
		}
	}
}

func TestAFileThatIsTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, "+a\n")
	if err := os.Truncate(path, ledger.MaxFile+1); err != nil {
		t.Fatal(err)
	}
	_, err := ledger.Open(path)
	fails(t, err, path, "67108865 bytes, more than 67108864")
	if err := os.Truncate(path, ledger.MaxFile); err != nil { // a torn record, however long
		t.Fatal(err)
	}
	expect(t, open(t, path), "a")
}

// A ledger that is full takes no more, but it can be emptied, and what is written
// into it can always be read again.
func TestAFullLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	var content bytes.Buffer
	var entries []string
	for i := 0; content.Len() < ledger.MaxFile; i++ {
		length := min(1<<15, ledger.MaxFile-content.Len()) - len("+\n")
		entry := fmt.Sprintf("%-*d", length, i)
		entries = append(entries, entry)
		fmt.Fprintf(&content, "+%s\n", entry)
	}
	write(t, path, content.String())
	l := open(t, path)
	fails(t, l.Add("x"), path, "full", "67108867 bytes, more than 67108864")
	if l.Has("x") {
		t.Error("what did not fit is in it")
	}
	remove(t, l, entries[1])
	entries = slices.Delete(entries, 1, 2)
	expect(t, l, entries...)
	add(t, l, "x")
	entries = append(entries, "x")
	shut(t, l)
	expect(t, open(t, path), entries...)
}

func TestItIsCompactedWhenItIsOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, "+a\n+b\n+c\n-b\n+d\n-a\n-e\n+c\n+a\n+torn")
	write(t, path+".new", "+left over from one that was killed\n")
	expect(t, open(t, path), "c", "d", "a")
	if got := read(t, path); got != "+c\n+d\n+a\n" {
		t.Errorf("the file has %q", got)
	}
	if _, err := os.Lstat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("of the new file: %v", err)
	}
}

func TestItIsCompactedWhenMuchIsDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	add(t, l, "first", "second", "third")
	for range ledger.MaxDead / 2 {
		add(t, l, "one of many")
		remove(t, l, "one of many")
	}
	remove(t, l, "first") // with which two are left, and two more than MaxDead are dead
	if got, want := strings.Count(read(t, path), "\n"), 3+ledger.MaxDead+1; got != want {
		t.Errorf("the file has %d lines, want %d", got, want)
	}
	add(t, l, "first")
	remove(t, l, "third")
	if got, want := read(t, path), "+second\n+first\n"; got != want {
		t.Errorf("the file has %.100q, want %q", got, want)
	}
	expect(t, l, "second", "first")
	add(t, l, "fourth") // which goes to the new file
	remove(t, l, "second")
	shut(t, l)
	expect(t, open(t, path), "first", "fourth")
}

// Where a new file cannot be made, the old one does, and it is not tried at every
// turn.
func TestWhatCannotBeCompacted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, strings.Repeat("+a\n-a\n", ledger.MaxDead))
	l := open(t, path)
	if err := os.MkdirAll(path+".new/in the way", 0o700); err != nil {
		t.Fatal(err)
	}
	for range ledger.MaxDead {
		add(t, l, "x")
		remove(t, l, "x")
	}
	add(t, l, "x")
	lines := strings.Count(read(t, path), "\n")
	if lines != 2*ledger.MaxDead+1 {
		t.Errorf("the file has %d lines, want %d", lines, 2*ledger.MaxDead+1)
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	add(t, l, "y")
	remove(t, l, "y")
	if got := strings.Count(read(t, path), "\n"); got != lines+2 {
		t.Errorf("it was tried again at once: the file has %d lines, want %d", got, lines+2)
	}
	for range ledger.MaxDead {
		add(t, l, "y")
		remove(t, l, "y")
	}
	if got := strings.Count(read(t, path), "\n"); got > lines {
		t.Errorf("the file has %d lines, when it can be compacted again", got)
	}
	shut(t, l)
	expect(t, open(t, path), "x")
}

func TestAfterCloseNothingIsChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	add(t, l, "x")
	shut(t, l)
	fails(t, l.Add("y"), path, "closed")
	fails(t, l.Remove("x"), path, "closed")
	fails(t, l.Add("x"), path, "closed")
	expect(t, l, "x")
	other := open(t, path) // and what belongs to it is left alone
	shut(t, l)
	add(t, other, "z")
	if _, err := ledger.Open(path); err == nil {
		t.Error("closing it a second time has unlocked the other")
	}
}

// Everybody's changes are there, each once, and in the order in which each made
// them; who looks meanwhile sees nothing twice.
func TestManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	const writers, each = 8, 150
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				entry := fmt.Sprintf("%d of %d", i, w)
				for _, change := range []func(string) error{l.Add, l.Remove, l.Add} {
					if err := change(entry); err != nil {
						t.Error(err)
					}
				}
				if err := l.Add("everybody's"); err != nil {
					t.Error(err)
				}
				if !l.Has(entry) {
					t.Errorf("%s is not there when it was added", entry)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	for looking := true; looking; {
		select {
		case <-done:
			looking = false
		default:
		}
		got := l.All()
		slices.Sort(got)
		if len(slices.Compact(got)) != len(got) {
			t.Error("an entry is there twice")
		}
		if l.Len() < len(got)-writers {
			t.Errorf("of %d entries %d are left", len(got), l.Len())
		}
	}
	got := l.All()
	if len(got) != writers*each+1 {
		t.Errorf("it has %d entries, want %d", len(got), writers*each+1)
	}
	for w := range writers {
		last := -1
		for i := range each {
			at := slices.Index(got, fmt.Sprintf("%d of %d", i, w))
			if at <= last {
				t.Fatalf("entry %d of writer %d is at place %d, the one before it at %d", i, w, at, last)
			}
			last = at
		}
	}
	shut(t, l)
	expect(t, open(t, path), got...)
}

// Half a record that cannot be taken back would swallow the next: so the file is written
// anew before there is one.
func TestAFileThatCannotBePutRightIsWrittenAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	add(t, l, "a")
	broken, err := os.Open(path) // to be read only
	if err != nil {
		t.Fatal(err)
	}
	sound := l.Swap(broken)
	fails(t, l.Add("b"), path)
	l.Swap(sound)
	broken.Close()
	add(t, l, "c")
	expect(t, l, "a", "c")
	shut(t, l)
	l = open(t, path)
	expect(t, l, "a", "c")
	add(t, l, "d")
}

// FuzzOpen opens files with anything in them. What is made of them is what an
// understanding of the format in other words makes of it, and it stays so.
func FuzzOpen(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "+", "+a", "+a\n", "-a\n", "+a\n-a\n", "+a\n+b\n-a\n+a\n", "+a\n+a\n+b", "+a\n?\n",
		"+\n", "+a\r\n", "\x00", "+\x00\n", "+a\n\n+b\n", "++\n+-\n--\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "ledger")
		write(t, path, string(content))
		want, sound := understand(string(content))
		l, err := ledger.Open(path)
		if (err == nil) != sound {
			t.Fatalf("%q: %v", content, err)
		}
		if err != nil {
			fails(t, err, path)
			if read(t, path) != string(content) {
				t.Error("it was changed")
			}
			return
		}
		expect(t, l, want...)
		if !l.Has("new") {
			want = append(want, "new")
		}
		add(t, l, "new")
		shut(t, l)
		l = open(t, path)
		expect(t, l, want...)
		remove(t, l, "new")
		shut(t, l)
		files, err := fs.Glob(os.DirFS(filepath.Dir(path)), "*")
		if err != nil || !slices.Equal(files, []string{"ledger", "ledger.lock"}) {
			t.Errorf("the folder has %q: %v", files, err)
		}
	})
}

func understand(content string) (entries []string, sound bool) {
	lines := strings.Split(content, "\n")
	for _, line := range lines[:len(lines)-1] {
		entry, isAdded := strings.CutPrefix(line, "+")
		if !isAdded {
			var isRemoved bool
			if entry, isRemoved = strings.CutPrefix(line, "-"); !isRemoved {
				return nil, false
			}
		}
		if entry == "" || len(entry) > 65536 {
			return nil, false
		}
		at := slices.Index(entries, entry)
		switch {
		case isAdded && at < 0:
			entries = append(entries, entry)
		case !isAdded && at >= 0:
			entries = slices.Delete(entries, at, at+1)
		}
	}
	return entries, true
}
