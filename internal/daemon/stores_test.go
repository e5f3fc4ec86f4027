//go:build linux

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/lists"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/ruleset"
)

// Rules of a daemon that has nothing to remember, and of others that have.
var (
	forgetful = &ruleset.Config{Doors: []ruleset.Door{
		{Methods: []method.Method{&fixed.Sequence{}}, OnOpen: &ruleset.Command{}},
		{Methods: []method.Method{&lists.List{}}}, // used lines are crossed out in the list itself
	}}
	withPasswords = &ruleset.Config{Doors: []ruleset.Door{{}, {Methods: []method.Method{&passwords.OTP{}}}}}
	withRolling   = &ruleset.Config{Doors: []ruleset.Door{{Methods: []method.Method{&rolling.Rolling{}}}}}
	withCommands  = &ruleset.Config{Doors: []ruleset.Door{{OnClose: &ruleset.Command{}}}}
)

// files returns the names of the files in a folder.
func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// inFolder returns the memory of a daemon that is no service, and whose control socket is
// in a folder of its own.
func inFolder(t *testing.T) (s *stores, folder string) {
	t.Helper()
	t.Setenv("STATE_DIRECTORY", "")
	folder = t.TempDir()
	s = newStores(filepath.Join(folder, "control.sock"), func(text string) { t.Errorf("told: %s", text) })
	t.Cleanup(s.close)
	return s, folder
}

func TestWhatIsRememberedIsInTheStateFolderOrBesideTheSocket(t *testing.T) {
	for folder, want := range map[string][2]string{
		"":                   {"/run/knockwall/control.sock.used", "/run/knockwall/control.sock.due"},
		"/var/lib/knockwall": {"/var/lib/knockwall/used", "/var/lib/knockwall/due"},
	} {
		t.Setenv("STATE_DIRECTORY", folder)
		s := newStores("/run/knockwall/control.sock", nil)
		if got := [2]string{s.used.path, s.due.path}; got != want {
			t.Errorf("with STATE_DIRECTORY=%q: %q, want %q", folder, got, want)
		}
	}
}

func TestNoFileIsMadeWhereNothingHasToBeRemembered(t *testing.T) {
	s, folder := inFolder(t)
	if err := s.open(forgetful); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*lateStore{s.used, s.due} {
		if l.Has("x") || l.Len() != 0 || l.All() != nil || l.Remove("x") != nil {
			t.Error("something is remembered")
		}
	}
	if got := files(t, folder); got != nil {
		t.Errorf("there are %q", got)
	}
}

func TestWhatRulesNeedIsMadeAtOnce(t *testing.T) {
	for _, test := range []struct {
		config *ruleset.Config
		want   []string
	}{
		{withPasswords, []string{"control.sock.used", "control.sock.used.lock"}},
		{withRolling, []string{"control.sock.used", "control.sock.used.lock"}},
		{withCommands, []string{"control.sock.due", "control.sock.due.lock"}},
	} {
		s, folder := inFolder(t)
		if err := errors.Join(s.open(forgetful), s.open(test.config), s.open(test.config)); err != nil {
			t.Fatal(err)
		}
		if got := files(t, folder); !slices.Equal(got, test.want) {
			t.Errorf("there are %q, want %q", got, test.want)
		}
	}
}

// A reload may need files that the rules at the start did not need. Entries of an earlier
// daemon are known whether they are needed or not.
func TestWhatIsRememberedOutlastsTheDaemon(t *testing.T) {
	s, folder := inFolder(t)
	if err := s.open(forgetful); err != nil {
		t.Fatal(err)
	}
	if err := s.used.Add("7 otp"); err != nil { // the file is made when it is needed
		t.Fatal(err)
	}
	if !s.used.Has("7 otp") || s.used.Len() != 1 {
		t.Error("it is not remembered")
	}
	s.close()
	next := newStores(filepath.Join(folder, "control.sock"), func(text string) { t.Errorf("told: %s", text) })
	defer next.close()
	if err := next.open(forgetful); err != nil {
		t.Fatal(err)
	}
	if got := next.used.All(); !slices.Equal(got, []string{"7 otp"}) {
		t.Errorf("the next daemon knows %q", got)
	}
	if err := next.used.Remove("7 otp"); err != nil || next.used.Has("7 otp") {
		t.Errorf("it is not forgotten: %v", err)
	}
}

// spoil puts something in the place of a store that is no store.
func spoil(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// Damage to a file does not keep the daemon from starting, and is reported once.
func TestDamagedMemoryIsToldAndUsed(t *testing.T) {
	s, folder := inFolder(t)
	everything := &ruleset.Config{Doors: slices.Concat(withPasswords.Doors, withCommands.Doors)}
	if err := errors.Join(s.open(everything), s.used.Add("7 otp"), s.due.Add("{}")); err != nil {
		t.Fatal(err)
	}
	s.close()
	if !s.used.Damaged().IsZero() {
		t.Error("it is damaged from the start")
	}
	base := filepath.Join(folder, "control.sock")
	for _, name := range []string{"used", "due"} {
		if err := os.Truncate(base+"."+name, 20); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{2, 0} {
		var said []string
		next := newStores(base, func(text string) { said = append(said, text) })
		if err := errors.Join(next.open(everything), next.used.Add("8 otp")); err != nil {
			t.Fatal(err)
		}
		if age := time.Since(next.used.Damaged()); age < 0 || age > 10*time.Minute {
			t.Errorf("it is damaged since %s", age)
		}
		next.close()
		if len(said) != want || want == 2 && (!strings.HasPrefix(said[0], base+".used was damaged (its end is missing)") || !strings.HasPrefix(said[1], base+".due was damaged")) {
			t.Errorf("told: %q", said)
		}
	}
}

func TestAMemoryThatIsBrokenIsAnErrorWhereItIsNeeded(t *testing.T) {
	s, folder := inFolder(t)
	used, due := filepath.Join(folder, "control.sock.used"), filepath.Join(folder, "control.sock.due")
	spoil(t, used)
	spoil(t, due)
	for _, c := range []*ruleset.Config{forgetful, {}} {
		if err := s.open(c); err != nil {
			t.Errorf("where it is not: %v", err)
		}
	}
	for path, c := range map[string]*ruleset.Config{used: withPasswords, due: withCommands} {
		err := s.open(c)
		if err == nil || !strings.HasPrefix(err.Error(), "opening the store "+path+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("where %s is: %v", path, err)
		}
	}
	if err := s.used.Add("x"); err == nil || s.used.Has("x") {
		t.Errorf("what cannot be remembered is: %v", err)
	}
	if info, err := os.Lstat(used); err != nil || !info.IsDir() {
		t.Errorf("it is changed: %v, %v", info, err)
	}
}

// Whoever asks a memory that is back sees all of it. If it comes back between the question
// and the answer, nothing is added: the caller does not know what is in it.
func TestAMemoryThatIsBackIsAskedFirst(t *testing.T) {
	for what, ask := range map[string]func(*lateStore) bool{
		"all":     func(l *lateStore) bool { return slices.Equal(l.All(), []string{"7 otp"}) },
		"the sum": func(l *lateStore) bool { return l.Len() == 1 },
		"one":     func(l *lateStore) bool { return l.Has("7 otp") },
	} {
		s, folder := inFolder(t)
		if err := errors.Join(s.open(withPasswords), s.used.Add("7 otp")); err != nil {
			t.Fatal(err)
		}
		s.close()
		if err := os.Rename(folder, folder+".away"); err != nil {
			t.Fatal(err)
		}
		next := newStores(filepath.Join(folder, "control.sock"), func(text string) { t.Errorf("told: %s", text) })
		other := newStores(filepath.Join(folder, "control.sock"), func(text string) { t.Errorf("told: %s", text) })
		if ask(next.used) || ask(other.used) {
			t.Errorf("%s: asked where there is no folder", what)
		}
		if err := os.Rename(folder+".away", folder); err != nil {
			t.Fatal(err)
		}
		if !ask(next.used) {
			t.Errorf("%s: what is in it is not seen", what)
		}
		next.close()
		if err := other.used.Add("8 otp"); !errors.Is(err, errJustBack) {
			t.Errorf("%s: added to a memory that nobody has asked: %v", what, err)
		}
		if err := other.used.Add("8 otp"); err != nil || !ask(other.used) && other.used.Len() != 2 {
			t.Errorf("%s: %v, %q", what, err, other.used.All())
		}
		other.close()
	}
}

// A state folder that was missing when the daemon started is read before anything opens a
// door. A folder that is taken away while the daemon runs, and is put back or made again,
// gets everything that was used.
func TestAMemoryThatWasAwayIsBackByItself(t *testing.T) {
	s, folder := inFolder(t)
	if err := errors.Join(s.open(withPasswords), s.used.Add("7 otp")); err != nil {
		t.Fatal(err)
	}
	s.close()
	away := folder + ".away"
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(folder, away)
	next := newStores(filepath.Join(folder, "control.sock"), func(text string) { t.Errorf("told: %s", text) })
	defer next.close()
	if next.open(withPasswords) == nil || next.used.Add("8 otp") == nil {
		t.Error("there is a memory in no folder")
	}
	move(away, folder)
	if !next.used.Has("7 otp") || next.used.Add("8 otp") != nil {
		t.Error("what was used before is good again, or nothing can be")
	}

	move(folder, away)
	if next.used.Add("9 otp") == nil || next.used.Has("9 otp") {
		t.Error("it is remembered in no folder")
	}
	move(away, folder)
	if err := next.used.Add("9 otp"); err != nil {
		t.Errorf("the folder is back: %v", err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := next.used.Add("10 otp"); err != nil {
		t.Errorf("the folder is made anew: %v", err)
	}
	next.close()
	last := newStores(filepath.Join(folder, "control.sock"), func(text string) { t.Errorf("told: %s", text) })
	defer last.close()
	if err := last.open(withPasswords); err != nil || last.used.Len() != 4 {
		t.Errorf("the next daemon knows %q, %v", last.used.All(), err)
	}
}
