package wall_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/lists"
	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// listed is a door with one-time sequences, and its list.
type listed struct {
	t    *testing.T
	path string
	door ruleset.Door
}

func list(t *testing.T, lines ...string) listed {
	l := listed{t, filepath.Join(t.TempDir(), "list"), door("ssh", 22)}
	l.door.Methods = []method.Method{&lists.List{File: onetime.List{Path: l.path}}}
	l.write(lines...)
	return l
}

func (l listed) write(lines ...string) {
	l.t.Helper()
	if err := os.WriteFile(l.path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// expect checks the contents of the file.
func (l listed) expect(lines ...string) {
	l.t.Helper()
	text, err := os.ReadFile(l.path)
	if want := strings.Join(lines, "\n") + "\n"; err != nil || string(text) != want {
		l.t.Errorf("the list is %q, %v, want %q", text, err, want)
	}
}

// ports returns TCP ports as knocks.
func ports(numbers ...uint16) (knocks []packet.Port) {
	for _, n := range numbers {
		knocks = append(knocks, tcp(n))
	}
	return knocks
}

func TestEachLineOfAListOpensOnce(t *testing.T) {
	l := list(t, "# those that I have on paper", "7001,8001,9001", "7002,8002:udp,9002", "7003,8003,9003")
	second := []packet.Port{tcp(7002), {Number: 8002, Protocol: packet.UDP}, tcp(9002)}
	guarded(t, config(l.door), func(h *host) {
		a, b := h.client(alice), h.client(bob)
		b.became("one that is not its turn", second)
		a.became("the first", ports(7001, 8001, 9001), "opened ssh 192.0.2.1 3/3")
		l.expect("# those that I have on paper", "#001,8001,9001", "7002,8002:udp,9002", "7003,8003,9003")
		if got := h.changes(); !slices.Equal(got, []string{"OpenWindows ssh 192.0.2.1", "Install knockwall"}) {
			h.t.Errorf("changed: %q", got)
		}
		b.became("the first, overheard", ports(7001, 8001, 9001))
		b.became("the second", second, "opened ssh 192.0.2.2 3/3")
		a.became("the third", ports(7003, 8003, 9003), "refreshed ssh 192.0.2.1 3/3")
		a.became("one that is used", second)
		l.expect("# those that I have on paper", "#001,8001,9001", "#002,8002:udp,9002", "#003,8003,9003")
		if left := h.status().Doors[0].SequencesLeft; left == nil || *left != 0 {
			h.t.Errorf("%v sequences are left", left)
		}
		time.Sleep(window)
		synctest.Wait()
		h.expect("the list is used up", b.dial(22), waiting)
	})
}

func TestEachUsedLineHasAWarningWhenFewAreLeft(t *testing.T) {
	l := list(t, "7001", "7002", "7003", "7004", "7005")
	c := config(l.door)
	guarded(t, c, func(h *host) {
		a := h.client(alice)
		for i, want := range [][]string{
			nil,
			{"low ssh: sequences left in " + l.path + ": 3"},
			{"low ssh: sequences left in " + l.path + ": 2"},
			{"low ssh: sequences left in " + l.path + ": 1"},
			{"low ssh: sequences left in " + l.path + ": 0"},
		} {
			a.knock(7001 + uint16(i))
			synctest.Wait()
			h.trail.expect(h.t, []audit.Kind{audit.Low}, want...)
		}
		if err := h.wall.Apply(c); err != nil {
			h.t.Fatal(err)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Low}) // it was reported already
		l.write("7006", "7007")
		if err := h.wall.Apply(c); err != nil {
			h.t.Fatal(err)
		}
		h.trail.expect(h.t, []audit.Kind{audit.Low}, "low ssh: sequences left in "+l.path+": 2")
		a.became("a line that was added", ports(7006), "refreshed ssh 192.0.2.1 1/1")
	})
}

func TestAListThatBeginsWithFewLinesHasAWarningAtTheStart(t *testing.T) {
	l := list(t, "#001", "7002")
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		if err := h.raise(config(l.door)); err != nil {
			t.Fatal(err)
		}
		h.trail.expect(t, []audit.Kind{audit.Low}, "low ssh: sequences left in "+l.path+": 1")
		h.run()
	})
}

func TestOfTwoSourcesThatKnockTheSameLineOneIsAdmitted(t *testing.T) {
	l := list(t, "7001,8001,9001", "7002,8002,9002")
	guarded(t, config(l.door), func(h *host) {
		h.log().hold()
		a, b := h.client(alice), h.client(bob)
		for _, port := range []uint16{7001, 8001, 9001} {
			a.knock(port)
			b.knock(port)
		}
		h.log().resume()
		synctest.Wait()
		h.trail.expect(h.t, fates, "opened ssh 192.0.2.1 3/3")
		h.expect("alice was the first", a.dial(22), accepted)
		h.expect("bob was not", b.dial(22), waiting)
		l.expect("#001,8001,9001", "7002,8002,9002")
		b.became("the next one", ports(7002, 8002, 9002), "opened ssh 192.0.2.2 3/3")
	})
}

func TestALineThatWasChangedMeanwhileOpensNothing(t *testing.T) {
	l := list(t, "7001,8001,9001", "7002,8002,9002")
	guarded(t, config(l.door), func(h *host) {
		l.write("7005,8005,9005", "7002,8002,9002")
		a := h.client(alice)
		a.became("the line that was there", ports(7001, 8001, 9001), "refused ssh 192.0.2.1 3/3: "+l.path+
			" line 1: the line was changed meanwhile, so the list is read again")
		l.expect("7005,8005,9005", "7002,8002,9002")
		a.became("the line that is there", ports(7005, 8005, 9005), "opened ssh 192.0.2.1 3/3")
	})
}

func TestALineThatCannotBeCrossedOutOpensNothing(t *testing.T) {
	l := list(t, "7001,8001,9001", "7002,8002,9002")
	guarded(t, config(l.door), func(h *host) {
		a := h.client(alice)
		for what, spoil := range map[string]func() error{
			"others can read it": func() error { return os.Chmod(l.path, 0o604) },
			"it is deleted":      func() error { return os.Remove(l.path) },
		} {
			if err := spoil(); err != nil {
				h.t.Fatal(err)
			}
			h.trail.take()
			a.knock(7001, 8001, 9001)
			synctest.Wait()
			got := h.trail.take(append(fates, audit.Low)...)
			if len(got) != 2 || !strings.HasPrefix(got[0], "refused ssh 192.0.2.1 3/3: ") || !strings.Contains(got[0], l.path) ||
				!strings.Contains(got[1], "nobody can open the door ssh by a sequence: ") {
				h.t.Errorf("%s: %q", what, got)
			}
			h.expect(what, a.dial(22), waiting)
			l.write("7001,8001,9001", "7002,8002,9002")
			if err := os.Chmod(l.path, 0o600); err != nil {
				h.t.Fatal(err)
			}
			if err := h.wall.Apply(config(l.door)); err != nil {
				h.t.Fatal(err)
			}
			time.Sleep(audit.SumInterval) // so that no events are summed up
			synctest.Wait()
		}
	})
}

func TestAWallIsNotInstalledWithAMissingList(t *testing.T) {
	l := list(t, "7001,8001,9001")
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	guarded(t, config(sshDoor()), func(h *host) {
		if err := h.raise(config(l.door)); !errors.Is(err, os.ErrNotExist) {
			h.t.Errorf("a reload: %v", err)
		}
		h.client(alice).became("by the former rules", ports(7000, 8000, 9000), "opened ssh 192.0.2.1 3/3")
	})
}

// An install that failed is retried. Otherwise nobody could knock the next sequence.
func TestTheNextLineComesIntoForceWhenTheKernelLetsIt(t *testing.T) {
	l := list(t, "7001,8001,9001", "7002,8002,9002")
	guarded(t, config(l.door), func(h *host) {
		h.failing("Install", errInjected)
		a := h.client(alice)
		a.became("the first", ports(7001, 8001, 9001), "opened ssh 192.0.2.1 3/3")
		time.Sleep(3 * wall.LookAtClock)
		h.failing("nothing", nil)
		time.Sleep(wall.LookAtClock)
		synctest.Wait()
		a.became("the second", ports(7002, 8002, 9002), "refreshed ssh 192.0.2.1 3/3")
	})
}

func TestALineThatIsUsedStaysUsedWhateverBecomesOfTheDaemon(t *testing.T) {
	l := list(t, "7001,8001,9001", "7002,8002,9002")
	c := config(l.door)
	guarded(t, c, func(h *host) {
		h.client(alice).became("the first", ports(7001, 8001, 9001), "opened ssh 192.0.2.1 3/3")
		next := h.again(c)
		next.client(bob).became("the first, overheard", ports(7001, 8001, 9001))
		next.client(bob).became("the second", ports(7002, 8002, 9002), "opened ssh 192.0.2.2 3/3")
	})
}

// A list that could not be read for a moment opens its door again by itself. Meanwhile no
// event says that no sequence is left.
func TestAListThatIsBackOpensItsDoorAgain(t *testing.T) {
	l := list(t, "7001", "7002", "7003", "7004", "7005")
	guarded(t, config(l.door), func(h *host) {
		if err := os.Rename(l.path, l.path+".away"); err != nil {
			h.t.Fatal(err)
		}
		a := h.client(alice)
		a.knock(7001)
		synctest.Wait()
		if low := h.trail.take(audit.Low); len(low) != 1 || !strings.Contains(low[0], "nobody can open the door ssh by a sequence: ") {
			h.t.Errorf("told: %q", low)
		}
		if left := h.status().Doors[0].SequencesLeft; left != nil {
			h.t.Errorf("%d are said to be left", *left)
		}
		h.changes()
		time.Sleep(10 * wall.LookAtClock)
		synctest.Wait()
		if got := h.changes(); slices.Contains(got, "Install knockwall") {
			h.t.Errorf("as long as it is away: %q", got)
		}
		if err := os.Rename(l.path+".away", l.path); err != nil {
			h.t.Fatal(err)
		}
		time.Sleep(2 * wall.LookAtClock)
		a.became("the line that was good before", ports(7001), "opened ssh 192.0.2.1 1/1")
		if left := h.status().Doors[0].SequencesLeft; left == nil || *left != 4 {
			h.t.Errorf("%v are left, want 4", left)
		}
	})
}
