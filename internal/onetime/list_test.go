//go:build linux

package onetime_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/durable/durabletest"
	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// write makes a list that others cannot read.
func write(t *testing.T, text string) onetime.List {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return onetime.List{Path: path}
}

// expectText compares the text of a list with the wanted one.
func expectText(t *testing.T, l onetime.List, want string) {
	t.Helper()
	if got, err := os.ReadFile(l.Path); err != nil || string(got) != want {
		t.Errorf("the list is %q, %v; want %q", got, err, want)
	}
}

// next returns the next line of a list, and checks how many are left.
func next(t *testing.T, l onetime.List, wantLeft int) onetime.Line {
	t.Helper()
	line, left, err := l.Next()
	if err != nil || left != wantLeft || line.IsZero() != (left == 0) {
		t.Fatalf("%v, %d are left, %v; want %d", line.Steps, left, err, wantLeft)
	}
	return line
}

func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }
func udp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.UDP} }

func TestLinesAreReadAsKnockdReadsThem(t *testing.T) {
	for text, want := range map[string][]packet.Port{
		"7000,8000,9000\n":                   {tcp(7000), tcp(8000), tcp(9000)},
		"7000,8000,9000":                     {tcp(7000), tcp(8000), tcp(9000)},
		"7000,8000:udp,9000:tcp\r\n":         {tcp(7000), udp(8000), tcp(9000)},
		"7000:UDP":                           {udp(7000)},
		" 7000 ,\t8000 : udp , 9000 \n":      {tcp(7000), udp(8000), tcp(9000)},
		"7000/udp, 8000/tcp\n":               {udp(7000), tcp(8000)},
		"# 1,2,3\n\n \t\r\n  # 4\n\r\n5,6\n": {tcp(5), tcp(6)},
		"#7000,8000\n9000,1:udp\n2,3":        {tcp(9000), udp(1)},
		"1,1,1\n":                            {tcp(1), tcp(1), tcp(1)},
	} {
		line, left, err := write(t, text).Next()
		if err != nil || left == 0 || !slices.Equal(line.Steps, want) {
			t.Errorf("%q is %v, %d left, %v; want %v", text, line.Steps, left, err, want)
		}
	}
}

func TestWhatHasNoLineLeftHasNone(t *testing.T) {
	for _, text := range []string{"", "\n", "# a comment", "#1,2,3\n#4,5,6\n", "  \r\n\t\n", "\n #"} {
		l := write(t, text)
		if line := next(t, l, 0); len(line.Steps) != 0 || !line.Equal(onetime.Line{}) {
			t.Errorf("%q has %v", text, line.Steps)
		}
		expectText(t, l, text)
	}
}

func TestALineThatIsNoSequenceIsToldByItsNumber(t *testing.T) {
	for text, want := range map[string]struct {
		line int
		what string
	}{
		"many\n":            {1, "this is not a sequence"},
		"1,2\n\n#x\n3,\n":   {4, "this is not a sequence"},
		"1,2\r\n0\r\n":      {2, "this is not a sequence"},
		"1,65536":           {1, "this is not a sequence"},
		"1,2:icmp":          {1, "this is not a sequence"},
		"1,2-3":             {1, "this is not a sequence"},
		"1 2":               {1, "this is not a sequence"},
		"1,2\n3;4":          {2, "this is not a sequence"},
		"\ufeff1,2":         {1, "this is not a sequence"},
		"1\r2":              {1, "this is not a sequence"},
		"1,2\n\x00\x00\x00": {2, "this is not a sequence"},
		strings.Repeat("1,", sequence.MaxSteps) + "1": {1, "a sequence has at most 32 knocks, and this one has 33"},
	} {
		l := write(t, text)
		line, left, err := l.Next()
		var wrong *onetime.LineError
		if !errors.As(err, &wrong) || wrong.Line != want.line || wrong.Path != l.Path || wrong.Unwrap() == nil ||
			!strings.Contains(err.Error(), want.what) || !strings.HasPrefix(err.Error(), fmt.Sprintf("%s line %d: ", l.Path, want.line)) {
			t.Errorf("%q: %v, want line %d: %s", text, err, want.line, want.what)
		}
		if !line.IsZero() || left != 0 {
			t.Errorf("%q: there is %v, of %d", text, line.Steps, left)
		}
	}
	longest := strings.TrimSuffix(strings.Repeat("1,", sequence.MaxSteps), ",")
	if line := next(t, write(t, longest), 1); len(line.Steps) != sequence.MaxSteps {
		t.Errorf("the longest has %d knocks", len(line.Steps))
	}
}

// Lines are used in order, whatever their line ends are. Only their first bytes change.
func TestUsedLinesAreCrossedOut(t *testing.T) {
	for before, after := range map[string][]string{
		"# list\n1,2\n\n3,4:udp\n5,6": {"# list\n#,2\n\n3,4:udp\n5,6", "# list\n#,2\n\n#,4:udp\n5,6", "# list\n#,2\n\n#,4:udp\n#,6"},
		"1,2\r\n3,4\r\n":              {"#,2\r\n3,4\r\n", "#,2\r\n#,4\r\n"},
		" 1, 2 \n\t3":                 {"#1, 2 \n\t3", "#1, 2 \n#3"},
		"1,2\n1,2\n":                  {"#,2\n1,2\n", "#,2\n#,2\n"}, // two equal lines are two uses
		"7":                           {"#"},
	} {
		l := write(t, before)
		for i, want := range after {
			if err := l.Use(next(t, l, len(after)-i)); err != nil {
				t.Fatalf("%q: %v", before, err)
			}
			expectText(t, l, want)
		}
		next(t, l, 0)
	}
}

func TestALineIsUsedOnce(t *testing.T) {
	l := write(t, "1,2\n1,2\n3\n")
	line := next(t, l, 3)
	if again := next(t, l, 3); !again.Equal(line) {
		t.Errorf("read twice: %v and %v", line, again)
	}
	if err := l.Use(line); err != nil {
		t.Fatal(err)
	}
	var used *onetime.LineError
	if err := l.Use(line); !errors.As(err, &used) || used.Line != 1 {
		t.Errorf("used twice: %v", err)
	}
	expectText(t, l, "#,2\n1,2\n3\n")
	if second := next(t, l, 2); second.Equal(line) {
		t.Error("the second line is the first")
	}
}

// If somebody edits the list after a line was read, Use marks no other line, and the line
// does not open the door more often than the list has it.
func TestALineThatWasChangedIsNotUsed(t *testing.T) {
	const text = "# list\n7000,8000\n3,4\n"
	for name, changed := range map[string]string{
		"another knock":      "# list\n7000,8001\n3,4\n",
		"more of a knock":    "# list\n7000,80000\n3,4\n",
		"one more knock":     "# list\n7000,8000,1\n3,4\n",
		"one knock less":     "# list\n7000\n3,4\n",
		"a line before":      "# list\n9\n7000,8000\n3,4\n",
		"a line less before": "7000,8000\n3,4\n",
		"a part of another":  "# lis\n17000,8000\n3,4\n",
		"behind a comment":   "# list#7000,8000\n3,4\n",
		"used":               "# list\n#000,8000\n3,4\n",
		"cut short":          "# list\n7000,80",
		"empty":              "",
	} {
		l := write(t, text)
		line := next(t, l, 2)
		if err := os.WriteFile(l.Path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		var wrong *onetime.LineError
		if err := l.Use(line); !errors.As(err, &wrong) || wrong.Line != 2 {
			t.Errorf("%s: %v", name, err)
		}
		expectText(t, l, changed)
	}
	for name, changed := range map[string]string{
		"no newline at the end": "# list\n7000,8000",
		"other lines after it":  "# list\n7000,8000\n5,6\n",
		"other newlines":        "# list\n7000,8000\r\n3,4\r\n",
	} {
		l := write(t, text)
		line := next(t, l, 2)
		if err := os.WriteFile(l.Path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.Use(line); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		expectText(t, l, strings.Replace(changed, "7000,", "#000,", 1))
	}
}

func TestAListIsForNobodyElse(t *testing.T) {
	for mode, taken := range map[fs.FileMode]bool{
		0o600: true, 0o640: true, 0o660: true, 0o700: true,
		0o604: false, 0o602: false, 0o601: false, 0o644: false, 0o666: false,
	} {
		l := write(t, "1,2\n")
		line := next(t, l, 1)
		if err := os.Chmod(l.Path, mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := l.Next()
		for what, err := range map[string]error{"Next": err, "Writable": l.Writable(), "Use": l.Use(line)} {
			if (err == nil) != taken || err != nil && !strings.Contains(err.Error(), "chmod o= "+l.Path) {
				t.Errorf("%s of a list of mode %o: %v", what, mode, err)
			}
		}
		if want := map[bool]string{true: "#,2\n", false: "1,2\n"}[taken]; true {
			expectText(t, l, want)
		}
	}
}

func TestAListIsAFile(t *testing.T) {
	folder := t.TempDir()
	fifo := filepath.Join(folder, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, fifo, "/dev/null", filepath.Join(folder, "none")} {
		l := onetime.List{Path: path}
		line, left, err := l.Next()
		if err == nil || !line.IsZero() || left != 0 || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %d, %v", path, line, left, err)
		}
		if err := l.Writable(); err == nil {
			t.Errorf("%s is writable", path)
		}
		if isMissing := errors.Is(err, fs.ErrNotExist); isMissing != strings.HasSuffix(path, "none") {
			t.Errorf("%s: %v", path, err)
		}
	}
	l := write(t, "1,2\n")
	link := onetime.List{Path: filepath.Join(folder, "link")}
	if err := os.Symlink(l.Path, link.Path); err != nil {
		t.Fatal(err)
	}
	if err := link.Use(next(t, link, 1)); err != nil {
		t.Error(err)
	}
	expectText(t, l, "#,2\n")
}

func TestAReadOnlyListIsReadAndNotUsed(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root writes every file: needs a user that is not root")
	}
	l := write(t, "1,2\n")
	if err := os.Chmod(l.Path, 0o400); err != nil {
		t.Fatal(err)
	}
	line := next(t, l, 1)
	for what, err := range map[string]error{"Writable": l.Writable(), "Use": l.Use(line)} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", what, err)
		}
	}
	expectText(t, l, "1,2\n")
	if err := os.Chmod(l.Path, 0o200); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Next(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("that cannot be read: %v", err)
	}
}

func TestAListHasItsBounds(t *testing.T) {
	const most = 1 << 20
	text := strings.Repeat("1,2,3,4\n", most/8)
	l := write(t, text)
	next(t, l, most/8)
	if err := os.WriteFile(l.Path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Next(); err == nil || !strings.Contains(err.Error(), "at most 1024 KiB") {
		t.Errorf("above the bound: %v", err)
	}
	// A line of any length.
	if _, _, err := write(t, strings.Repeat("1,", most/2-1)+"1").Next(); err == nil || !strings.Contains(err.Error(), "at most 32 knocks") {
		t.Errorf("a long line: %v", err)
	}
}

// A line that was marked as used stays so after a loss of power.
func TestALineThatIsUsedIsOnTheDisk(t *testing.T) {
	disk := durabletest.Watch(t)
	l := write(t, "7000,8000\n9000\n")
	folder, err := os.Open(filepath.Dir(l.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := durable.Sync(folder); err != nil { // the writer of the list has synced it
		t.Fatal(err)
	}
	for left := 2; left > 0; left-- {
		if err := l.Use(next(t, l, left)); err != nil {
			t.Fatal(err)
		}
		disk.Has(l.Path)
	}
}
