package filestore_test

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
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/durable/durabletest"
	"github.com/knockwall/knockwall/internal/filestore"
)

// open opens a store until the test ends.
func open(t testing.TB, path string) *filestore.Store {
	t.Helper()
	l, err := filestore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, l) })
	return l
}

func shut(t testing.TB, l *filestore.Store) {
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

func add(t testing.TB, l *filestore.Store, entries ...string) {
	t.Helper()
	for _, entry := range entries {
		if err := l.Add(entry); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t testing.TB, l *filestore.Store, entries ...string) {
	t.Helper()
	for _, entry := range entries {
		if err := l.Remove(entry); err != nil {
			t.Fatal(err)
		}
	}
}

func expect(t testing.TB, l *filestore.Store, want ...string) {
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

// fails checks that an error contains all of these texts.
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
		{l.Add, "94690817+x\n03377e22=\n"},
		{l.Add, "94690817+x\n03377e22=\n"},
		{l.Remove, "94690817+x\n577c6745-x\nc0b78a60=\n"},
		{l.Remove, "94690817+x\n577c6745-x\nc0b78a60=\n"},
		{l.Add, "94690817+x\n577c6745-x\n9e30dbc8+x\ndaaee54f=\n"},
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
	fails(t, l.Add(strings.Repeat("x", filestore.MaxEntry+1)), path, "65537 bytes, more than 65536")
	if got := read(t, path); got != filestore.Encode() {
		t.Errorf("the file has %q", got)
	}
	longest := strings.Repeat("x", filestore.MaxEntry)
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
	if read(t, path) != filestore.Encode() {
		t.Fatal("it was not compacted")
	}
	private("when it is compacted")
}

// A program that the daemon starts inherits none of the files.
func TestFilesAreClosedForOtherPrograms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, filestore.Encode("+x", "-x")) // to be compacted
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
		t.Errorf("%d files are open, want the store, its lock and its folder", found)
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
			_, err := filestore.Open(path)
			fails(t, err, path+suffix, kind)
			if _, err := os.Lstat(filepath.Join(filepath.Dir(path), "elsewhere")); err == nil {
				t.Errorf("the link of %q was followed", suffix)
			}
		}
	}
}

// A file that others can write may contain anything.
func TestNobodyElseWritesALedger(t *testing.T) {
	for _, suffix := range []string{"", ".lock"} {
		for _, mode := range []fs.FileMode{0o620, 0o602, 0o666} {
			path := filepath.Join(t.TempDir(), "ledger")
			shut(t, open(t, path))
			if err := os.Chmod(path+suffix, mode); err != nil {
				t.Fatal(err)
			}
			_, err := filestore.Open(path)
			fails(t, err, "can write "+path+suffix, "run chmod g")
		}
	}
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := filestore.Open(filepath.Join(folder, "ledger"))
	fails(t, err, "everybody on this host can write "+folder+":")
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file to somebody else")
	}
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, filestore.Encode("+a"))
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "")
	_, err = filestore.Open(path)
	fails(t, err, path+" belongs to the user 12345")
}

func TestTheFolderHasToBeThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "ledger")
	_, err := filestore.Open(path)
	fails(t, err, path, "no such file")
	if _, err := os.Lstat(filepath.Dir(path)); err == nil {
		t.Error("the folder was made")
	}
}

// undamaged checks that a store was never damaged.
func undamaged(t testing.TB, l *filestore.Store) {
	t.Helper()
	if when, found := l.Damaged(); !when.IsZero() || found != "" {
		t.Errorf("it is damaged since %v: %q", when, found)
	}
}

// isDamaged checks that a store's file was found damaged just now.
func isDamaged(t testing.TB, l *filestore.Store, want string) {
	t.Helper()
	when, found := l.Damaged()
	if age := time.Since(when); age < 0 || age > 10*time.Minute || !strings.Contains(found, want) {
		t.Errorf("it is damaged since %v: %q, want %q", when, found, want)
	}
}

// Every kind of damage to the file is found and remembered, and leaves the undamaged
// entries.
func TestDamage(t *testing.T) {
	file := filestore.Encode("+a", "+b", "+c", "-b", "+d")
	lines := strings.SplitAfter(file, "\n")
	without := func(i int) string { return strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "") }
	for name, test := range map[string]struct {
		file, found string
		left        []string
	}{
		"empty":                    {"", "its end is missing", nil},
		"only an end of line":      {"\n", "line 1: it has 0 bytes", nil},
		"a flipped bit":            {strings.Replace(file, "+c", "+b", 1), "line 3: it is not as it was written", []string{"a", "d"}},
		"a checksum":               {strings.Replace(file, lines[1][:1], "g", 1), "line", nil},
		"the kind of a line":       {strings.Replace(file, "-b", "+b", 1), "line 4: it is not as it was written", []string{"a", "b", "c", "d"}},
		"a line that is gone":      {without(2), "line 3: it is not as it was written", []string{"a", "b", "d"}},
		"the first line":           {without(0), "line 1: it is not as it was written", []string{"c", "d"}},
		"lines in another order":   {lines[0] + lines[2] + lines[1] + strings.Join(lines[3:], ""), "line 2: it is", nil},
		"the last line":            {without(5), "its end is missing", []string{"a", "c", "d"}},
		"the last two lines":       {strings.Join(lines[:4], ""), "its end is missing", []string{"a", "c"}},
		"half of the last line":    {file[:len(file)-4], "its end is missing", []string{"a", "c", "d"}},
		"half of a record":         {strings.Join(lines[:4], "") + lines[4][:5], "its end is missing", []string{"a", "c"}},
		"something behind the end": {file + "x", "its end is missing", []string{"a", "c", "d"}},
		"two ends":                 {file + lines[5], "its end is missing", []string{"a", "c", "d"}},
		"line ends of a PC":        {strings.ReplaceAll(file, "\n", "\r\n"), "line 1: it is not as it was written", nil},
		"zeros":                    {file[:20] + strings.Repeat("\x00", 40), "its end is missing", nil},
		"an entry that is none":    {filestore.Encode("+a", "+", "+c"), "line 2: an entry is empty", []string{"a", "c"}},
		"a kind that is none":      {filestore.Encode("+a", "?b", "+c"), "line 2: it is of no kind", []string{"a", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger")
			write(t, path, test.file)
			l := open(t, path)
			isDamaged(t, l, test.found)
			if test.left != nil {
				expect(t, l, test.left...)
			}
			when, _ := l.Damaged()
			left := l.All()
			add(t, l, "new")
			for range 2 { // damage is found once, and always remembered
				shut(t, l)
				l = open(t, path)
				expect(t, l, append(left, "new")...)
				if again, found := l.Damaged(); !again.Equal(when) || found != "" {
					t.Errorf("when it is opened again: %v, %q, want %v", again, found, when)
				}
			}
		})
	}
}

// A change of any single byte of a file is found.
func TestEveryByteIsChecked(t *testing.T) {
	file := []byte(filestore.Encode("+1764324000 otp ssh 6b1f", "+x", "-x"))
	path := filepath.Join(t.TempDir(), "ledger")
	for at := range file {
		for bit := range 8 {
			broken := bytes.Clone(file)
			broken[at] ^= 1 << bit
			if strings.EqualFold(string(broken), string(file)) {
				continue // the same number
			}
			write(t, path, string(broken))
			l := open(t, path)
			if _, found := l.Damaged(); found == "" {
				t.Errorf("%q was taken for whole", broken)
			}
			shut(t, l)
		}
	}
}

// If a damaged file cannot be replaced, its entries can be read, and nothing is appended
// to it.
func TestDamageOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	broken := filestore.Encode("+a", "+b")[1:]
	write(t, path, broken)
	if err := os.MkdirAll(path+".new/in the way", 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := filestore.Open(path)
	fails(t, err, path+".new") // the folder in its way does not belong to the store
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	isDamaged(t, open(t, path), "line 1: it is")
}

// A file of an earlier version, without checksums, is read, and gets checksums.
func TestAFileWithoutChecksums(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, "+a\n+b\n-a\n+torn")
	l := open(t, path)
	expect(t, l, "b")
	undamaged(t, l)
	if got := read(t, path); got != filestore.Encode("+b") {
		t.Errorf("the file has %q", got)
	}
	shut(t, l)
	write(t, path, "+a\n?b\n+c\n")
	l = open(t, path)
	isDamaged(t, l, "line 2: it is no record")
	expect(t, l, "a", "c")
}

func TestAFileThatIsTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, filestore.Encode("+a"))
	if err := os.Truncate(path, filestore.MaxFile+1); err != nil {
		t.Fatal(err)
	}
	_, err := filestore.Open(path)
	fails(t, err, path, "67108865 bytes, more than 67108864")
	if err := os.Truncate(path, filestore.MaxFile); err != nil {
		t.Fatal(err)
	}
	l := open(t, path)
	expect(t, l, "a")
	isDamaged(t, l, "its end is missing")
}

// writeFull writes a file that is as large as a store may be, and returns its entries.
func writeFull(t *testing.T, path string) (entries []string) {
	t.Helper()
	var lines []string
	const each = len("00000000+\n")
	for left := filestore.MaxFile - len(filestore.Encode()); left > 0; {
		length := min(1<<15, left)
		left -= length
		entries = append(entries, fmt.Sprintf("%-*d", length-each, len(entries)))
		lines = append(lines, "+"+entries[len(entries)-1])
	}
	write(t, path, filestore.Encode(lines...))
	return entries
}

// A full store takes no more entries, but entries can be removed, and what is written to
// it can always be read again.
func TestAFullLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	entries := writeFull(t, path)
	l := open(t, path)
	fails(t, l.Add("x"), path, "full", "67108875 bytes, more than 67108864")
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
	write(t, path, filestore.Encode("+a", "+b", "+c", "-b", "+d", "-a", "-e", "+c", "+a"))
	write(t, path+".new", "+left over from one that was killed\n")
	expect(t, open(t, path), "c", "d", "a")
	if got := read(t, path); got != filestore.Encode("+c", "+d", "+a") {
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
	for range filestore.MaxDead / 2 {
		add(t, l, "one of many")
		remove(t, l, "one of many")
	}
	remove(t, l, "first") // now two entries are left, and MaxDead + 2 records are dead
	if got, want := strings.Count(read(t, path), "\n"), 3+filestore.MaxDead+1+1; got != want {
		t.Errorf("the file has %d lines, want %d", got, want)
	}
	add(t, l, "first")
	remove(t, l, "third")
	if got, want := read(t, path), filestore.Encode("+second", "+first"); got != want {
		t.Errorf("the file has %.100q, want %q", got, want)
	}
	expect(t, l, "second", "first")
	add(t, l, "fourth") // written to the new file
	remove(t, l, "second")
	shut(t, l)
	expect(t, open(t, path), "first", "fourth")
}

// If a new file cannot be made, the old one stays in use, and not every change tries
// again.
func TestWhatCannotBeCompacted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	write(t, path, filestore.Encode(slices.Repeat([]string{"+a", "-a"}, filestore.MaxDead)...))
	l := open(t, path)
	if err := os.MkdirAll(path+".new/in the way", 0o700); err != nil {
		t.Fatal(err)
	}
	for range filestore.MaxDead {
		add(t, l, "x")
		remove(t, l, "x")
	}
	add(t, l, "x")
	lines := strings.Count(read(t, path), "\n")
	if lines != 2*filestore.MaxDead+1+1 {
		t.Errorf("the file has %d lines, want %d", lines, 2*filestore.MaxDead+1+1)
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	add(t, l, "y")
	remove(t, l, "y")
	if got := strings.Count(read(t, path), "\n"); got != lines+2 {
		t.Errorf("it was tried again at once: the file has %d lines, want %d", got, lines+2)
	}
	for range filestore.MaxDead {
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
	other := open(t, path) // Close leaves the other store's files alone
	shut(t, l)
	add(t, other, "z")
	if _, err := filestore.Open(path); err == nil {
		t.Error("closing it a second time has unlocked the other")
	}
}

// All goroutines' changes are there, each once, and in the order in which each made them.
// Readers meanwhile see nothing twice.
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

// Half a record that cannot be taken back would swallow the next one. So the file is
// replaced before there is one.
func TestAFileThatCannotBePutRightIsWrittenAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	add(t, l, "a")
	broken, err := os.Open(path) // read-only
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

// A change is on the disk when its call returns, and so is what was read.
func TestWhatIsKnownIsOnTheDisk(t *testing.T) {
	disk := durabletest.Watch(t)
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	disk.Has(path)
	add(t, l, "a", "b")
	disk.Has(path)
	remove(t, l, "a")
	disk.Has(path)
	shut(t, l)
	for _, file := range []string{
		filestore.Encode("+a", "+b"),     // unchanged
		filestore.Encode("+a", "-a"),     // compacted
		filestore.Encode("+a")[1:],       // replaced, because it is damaged
		"+a\n+b\n",                       // replaced, because it has no checksums
		filestore.Encode("+a", "+b")[:9], // replaced, because it has no end line
	} {
		path := filepath.Join(t.TempDir(), "ledger")
		write(t, path, file)
		l := open(t, path)
		disk.Has(path)
		add(t, l, "c")
		disk.Has(path)
		shut(t, l)
	}
}

// A door waits for the disk: one sync for both changes, and the new entry is before the
// removal of the former one, so that no torn write leaves neither.
func TestReplaceWaitsForTheDiskOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	add(t, l, "a", "b")
	syncs := 0
	durable.Observe(func(*os.File) { syncs++ })
	t.Cleanup(func() { durable.Observe(nil) })
	if err := l.Replace("a", "c"); err != nil {
		t.Fatal(err)
	}
	if syncs != 1 {
		t.Errorf("it has synced %d times", syncs)
	}
	if got, want := read(t, path), filestore.Encode("+a", "+b", "+c", "-a"); got != want {
		t.Errorf("the file is %q, not %q", got, want)
	}
	expect(t, l, "b", "c")
	for _, pair := range [][2]string{{"absent", "d"}, {"d", "d"}, {"c", "b"}} {
		if err := l.Replace(pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, l, "b", "d")
	fails(t, l.Replace("b", ""), path, "empty")
	expect(t, l, "b", "d")
	shut(t, l)
	expect(t, open(t, path), "b", "d")
	fails(t, l.Replace("b", "e"), path, "closed")
}

// What has no room is replaced in a new file.
func TestReplaceInAFullLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	entries := writeFull(t, path)
	l := open(t, path)
	if err := l.Replace(entries[1], "x"); err != nil {
		t.Fatal(err)
	}
	entries = append(slices.Delete(entries, 1, 2), "x")
	expect(t, l, entries...)
	shut(t, l)
	expect(t, open(t, path), entries...)
}

// FuzzOpen opens files of arbitrary bytes. Entries that are read from them stay. Bytes
// that no store has written are found to be damage.
func FuzzOpen(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "+", "+a", "+a\n", "-a\n", "+a\n-a\n", "+a\n+b\n-a\n+a\n", "+a\n+a\n+b", "+a\n?\n",
		"+\n", "+a\r\n", "\x00", "+\x00\n", "+a\n\n+b\n", "++\n+-\n--\n",
		filestore.Encode(), filestore.Encode("+a"), filestore.Encode("+a", "-a", "+b"), filestore.Encode("!1764324000", "+a"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "ledger")
		write(t, path, string(content))
		l, err := filestore.Open(path)
		if err != nil {
			t.Fatalf("%q: %v", content, err)
		}
		want := l.All()
		if _, found := l.Damaged(); found == "" {
			expect(t, l, understand(string(content))...)
		}
		if !l.Has("new") {
			want = append(want, "new")
		}
		add(t, l, "new")
		shut(t, l)
		l = open(t, path)
		expect(t, l, want...)
		if _, found := l.Damaged(); found != "" {
			t.Errorf("what it wrote is damaged: %s", found)
		}
		remove(t, l, "new")
		shut(t, l)
		files, err := fs.Glob(os.DirFS(filepath.Dir(path)), "*")
		if err != nil || !slices.Equal(files, []string{"ledger", "ledger.lock"}) {
			t.Errorf("the folder has %q: %v", files, err)
		}
	})
}

// understand returns the entries of an undamaged file, without checking checksums.
func understand(content string) (entries []string) {
	for line := range strings.Lines(content) {
		if !strings.HasSuffix(line, "\n") {
			return entries
		}
		kind := strings.IndexAny(line, "+-!=")
		entry := line[kind+1 : len(line)-1]
		at := slices.Index(entries, entry)
		switch {
		case line[kind] == '+' && at < 0:
			entries = append(entries, entry)
		case line[kind] == '-' && at >= 0:
			entries = slices.Delete(entries, at, at+1)
		}
	}
	return entries
}
