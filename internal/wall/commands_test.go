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
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// The commands of these tests are real processes under a bubble's clock. That is sound: a
// goroutine that waits for a process is in a system call. Then the clock of the bubble
// does not advance and [synctest.Wait] does not return. So a process takes no time, and
// has ended when all goroutines are blocked.

// logbook is a file that commands write to.
type logbook struct {
	t    *testing.T
	path string
}

func newLogbook(t *testing.T) logbook { return logbook{t, filepath.Join(t.TempDir(), "log")} }

// says returns a command that logs its name, source and event.
func (l logbook) says(what string) *ruleset.Command {
	return &ruleset.Command{Timeout: time.Minute, Arguments: []ruleset.Argument{
		{{Text: "/bin/sh"}}, {{Text: "-c"}}, {{Text: `echo "$@" "$KNOCKWALL_EVENT" >> "$0"`}}, {{Text: l.path}},
		{{Text: what}}, {{Text: "for "}, {Variable: "source"}},
	}}
}

// take returns what was written since the last call.
func (l logbook) take() []string {
	l.t.Helper()
	synctest.Wait()
	text, err := os.ReadFile(l.path)
	if err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
	_ = os.Remove(l.path)
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

func (l logbook) expect(what string, want ...string) {
	l.t.Helper()
	if got := l.take(); !slices.Equal(got, want) {
		l.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// commanded is the SSH door with both commands and a close sequence.
func commanded(l logbook) ruleset.Door {
	d := reversible(7000, 8000, 9000)
	d.OnOpen, d.OnClose = l.says("open"), l.says("close")
	return d
}

// opens opens the door by knocks, in a second of its own.
func (c *client) opens() {
	time.Sleep(time.Second)
	c.knock(7000, 8000, 9000)
	synctest.Wait()
}

func TestOnOpenIsRunOnceForAWindowThatHasAnOnClose(t *testing.T) {
	l := newLogbook(t)
	guarded(t, config(commanded(l)), func(h *host) {
		a := h.client(alice)
		a.opens()
		l.expect("opened", "open for 192.0.2.1 opened")
		a.opens()
		l.expect("refreshed")
		time.Sleep(window)
		l.expect("over", "close for 192.0.2.1 expired")
		a.opens()
		l.expect("opened anew", "open for 192.0.2.1 opened")
		if n := h.due.Len(); n != 1 {
			h.t.Errorf("%d commands are due, want 1", n)
		}
		time.Sleep(window)
		l.expect("over", "close for 192.0.2.1 expired")
		if n := h.due.Len(); n != 0 {
			h.t.Errorf("%d commands are due in the end", n)
		}
	})
}

func TestOnOpenIsRunEachTimeWhereThereIsNoOnClose(t *testing.T) {
	l := newLogbook(t)
	d := commanded(l)
	d.OnClose = nil
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		a.opens()
		l.expect("opened", "open for 192.0.2.1 opened")
		a.opens()
		l.expect("refreshed", "open for 192.0.2.1 refreshed")
		time.Sleep(window)
		l.expect("over")
		if n := h.due.Len(); n != 0 {
			h.t.Errorf("%d commands are due", n)
		}
	})
}

func TestADoorMayHaveNothingButAnOnClose(t *testing.T) {
	l := newLogbook(t)
	d := commanded(l)
	d.OnOpen = nil
	guarded(t, config(d), func(h *host) {
		h.client(alice).opens()
		l.expect("opened")
		time.Sleep(window)
		l.expect("over", "close for 192.0.2.1 expired")
	})
}

func TestOnCloseIsRunHoweverAWindowEnds(t *testing.T) {
	for what, end := range map[string]func(h *host, a *client){
		"by hand": func(h *host, a *client) {
			if _, err := h.wall.Close("ssh", "192.0.2.1", false); err != nil {
				h.t.Fatal(err)
			}
		},
		"by a knock": func(_ *host, a *client) {
			time.Sleep(time.Second)
			a.knock(9000, 8000, 7000)
		},
		"by its connections": func(_ *host, a *client) {
			a.dial(22)
			a.dial(22)
		},
		"by a reload that takes the door away": func(h *host, _ *client) {
			if err := h.raise(config(door("web", 443, 6000))); err != nil {
				h.t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLogbook(t)
			d := limited(commanded(l), 2)
			guarded(t, config(d), func(h *host) {
				a := h.client(alice)
				a.opens()
				l.expect("opened", "open for 192.0.2.1 opened")
				end(h, a)
				l.expect("ended", "close for 192.0.2.1 closed")
				time.Sleep(2 * window)
				l.expect("much later")
				if n := h.due.Len(); n != 0 {
					h.t.Errorf("%d commands are due", n)
				}
			})
		})
	}
}

// The kernel may fail to close a spent window. Then on_close runs at its timeout.
func TestOnCloseIsRunForASpentWindowThatTheKernelDoesNotClose(t *testing.T) {
	l := newLogbook(t)
	guarded(t, config(limited(commanded(l), 1)), func(h *host) {
		a := h.client(alice)
		a.opens()
		h.failing("CloseWindow", errInjected)
		a.dial(22)
		l.expect("spent", "open for 192.0.2.1 opened")
		time.Sleep(window)
		l.expect("over", "close for 192.0.2.1 expired")
	})
}

func TestASpentWindowThatIsKnockedOpenAgainBeforeItIsClosedHasBothCommandsTwice(t *testing.T) {
	l := newLogbook(t)
	guarded(t, config(limited(commanded(l), 1)), func(h *host) {
		a := h.client(alice)
		a.opens()
		h.failing("CloseWindow", errInjected)
		a.dial(22)
		a.opens()
		l.expect("opened anew", "open for 192.0.2.1 opened", "close for 192.0.2.1 closed", "open for 192.0.2.1 opened")
		time.Sleep(window)
		l.expect("over", "close for 192.0.2.1 expired")
	})
}

func TestAWindowThatCouldNotBeClosedIsNotOver(t *testing.T) {
	l := newLogbook(t)
	guarded(t, config(commanded(l)), func(h *host) {
		h.client(alice).opens()
		l.take()
		h.failing("CloseWindow", errInjected)
		if _, err := h.wall.Close("ssh", "192.0.2.1", false); err == nil {
			h.t.Fatal("it is closed")
		}
		l.expect("not closed")
		time.Sleep(window)
		l.expect("over", "close for 192.0.2.1 expired")
	})
}

func TestOnCloseIsRunWhenTheWallGoesAndNotWhenItStays(t *testing.T) {
	down := func(h *host) {
		if _, err := h.wall.Down(h.t.Context()); err != nil {
			h.t.Error(err)
		}
	}
	for _, test := range []struct {
		what   string
		onStop ruleset.OnStop
		end    func(h *host)
		closes bool
	}{
		{"down", ruleset.Keep, down, true},
		{"a stop that removes the wall", ruleset.Remove, func(h *host) { h.stop() }, true},
		{"a stop", ruleset.Keep, func(h *host) { h.stop() }, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			l := newLogbook(t)
			c := config(commanded(l))
			c.Wall.OnStop = test.onStop
			guarded(t, c, func(h *host) {
				h.client(alice).opens()
				l.take()
				h.stopAfter(test.end)
				if test.closes {
					l.expect(test.what, "close for 192.0.2.1 closed")
				} else {
					l.expect(test.what)
				}
				if due := h.due.Len() == 1; due == test.closes {
					h.t.Errorf("a command is due: %t", due)
				}
			})
		})
	}
}

// stopAfter ends Run and waits for it.
func (h *host) stopAfter(end func(h *host)) {
	h.t.Helper()
	end(h)
	err := <-h.ended
	h.stop()
	if err != nil {
		h.t.Error(err)
	}
}

func TestTheNextDaemonRunsWhatIsDue(t *testing.T) {
	l := newLogbook(t)
	c := config(commanded(l))
	guarded(t, c, func(h *host) {
		h.client(alice).opens()
		time.Sleep(window / 2)
		h.client(bob).opens()
		l.take()
		for _, garbage := range []string{"", "{", "7 otp vpn", `{"door": 7}`} {
			if err := h.due.Add(garbage); err != nil {
				h.t.Fatal(err)
			}
		}
		h.stopAfter(func(h *host) { h.stop() })
		time.Sleep(window/2 + time.Second) // alice's window is over by then, and bob's is not
		next := h.newHost()
		if err := next.raise(c); err != nil {
			h.t.Fatal(err)
		}
		next.run()
		l.expect("at the start", "close for 192.0.2.1 expired")
		time.Sleep(window)
		l.expect("then", "close for 192.0.2.2 expired")
		if got := h.due.All(); len(got) != 4 {
			h.t.Errorf("what was not written here is left alone, and nothing else: %q", got)
		}
	})
}

// A refresh by the next daemon is a refresh of the same window.
func TestAWindowThatOutlastsItsDaemonHasItsCommandsOnce(t *testing.T) {
	l := newLogbook(t)
	c := config(commanded(l))
	guarded(t, c, func(h *host) {
		h.client(alice).opens()
		next := h.again(c)
		time.Sleep(10 * time.Second)
		next.client(alice).opens()
		l.expect("refreshed", "open for 192.0.2.1 opened")
		time.Sleep(window)
		l.expect("over", "close for 192.0.2.1 expired")
	})
}

// If a daemon is killed during an on_close, the next one runs it again.
func TestWhatWasDueWhenTheDaemonWasKilledIsRunInItsOrder(t *testing.T) {
	l := newLogbook(t)
	c := config(commanded(l))
	guarded(t, c, func(h *host) {
		a := h.client(alice)
		// There are three windows of one source. The on_close of two has not ended.
		var killed []string
		for i := range 3 {
			if i > 0 {
				time.Sleep(window)
			}
			a.opens()
			killed = append(killed, h.due.All()...)
		}
		l.take()
		h.stopAfter(func(h *host) { h.stop() })
		for _, entry := range append(killed, h.due.All()...) { // in the order of adding
			if err := errors.Join(h.due.Remove(entry), h.due.Add(entry)); err != nil {
				h.t.Fatal(err)
			}
		}
		next := h.newHost()
		if err := next.raise(c); err != nil {
			h.t.Fatal(err)
		}
		next.run()
		l.expect("at the start", "close for 192.0.2.1 closed", "close for 192.0.2.1 closed")
		time.Sleep(window)
		l.expect("when the third is over", "close for 192.0.2.1 expired")
		if n := h.due.Len(); n != 0 {
			h.t.Errorf("%d commands are due", n)
		}
	})
}

func TestOnCloseIsTheOneThatItWasWhenTheWindowOpened(t *testing.T) {
	l := newLogbook(t)
	former, later := commanded(l), commanded(l)
	later.OnOpen, later.OnClose = l.says("open anew"), l.says("close anew")
	guarded(t, config(former), func(h *host) {
		h.client(alice).opens()
		if err := h.raise(config(later)); err != nil {
			h.t.Fatal(err)
		}
		h.client(bob).opens()
		l.expect("opened", "open for 192.0.2.1 opened", "open anew for 192.0.2.2 opened")
		time.Sleep(window)
		got := l.take()
		slices.Sort(got) // commands for different sources run concurrently
		if want := []string{"close anew for 192.0.2.2 expired", "close for 192.0.2.1 expired"}; !slices.Equal(got, want) {
			h.t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestTheResultOfACommandHasAnEvent(t *testing.T) {
	shell := func(script string) *ruleset.Command {
		return &ruleset.Command{Timeout: time.Minute, Arguments: []ruleset.Argument{{{Text: "/bin/sh"}}, {{Text: "-c"}}, {{Text: script}}}}
	}
	d := sshDoor()
	for _, test := range []struct {
		command *ruleset.Command
		failed  bool
		want    string
	}{
		{shell("exit 0"), false, "on_open: exit code 0 after 0s"},
		{shell("echo done; echo again >&2"), false, "on_open: exit code 0 after 0s: done\nagain"},
		{shell("echo no such table; exit 3"), true, "on_open: exit code 3 after 0s: no such table"},
		{shell("kill -9 $$"), true, "on_open: /bin/sh was ended by SIGKILL, which another process or the program itself sent"},
		{&ruleset.Command{Timeout: time.Minute, Arguments: []ruleset.Argument{{{Text: "/no/such/program"}}}}, true,
			"on_open: starting /no/such/program: fork/exec /no/such/program: no such file or directory"},
	} {
		d.OnOpen = test.command
		guarded(t, config(d), func(h *host) {
			h.trail.watch(func(e audit.Event) {
				if e.Kind == audit.Command && e.Failed != test.failed {
					h.t.Errorf("%s: failed is %t", e, e.Failed)
				}
			})
			h.client(alice).opens()
			h.trail.expect(h.t, []audit.Kind{audit.Command}, "command ssh 192.0.2.1: "+test.want)
		})
	}
}

func TestAnOnCloseThatWouldBeForgottenIsRunAndHasAnEvent(t *testing.T) {
	l := newLogbook(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.due = book
		h.begin(config(commanded(l)))
		book.fail(errInjected)
		h.client(alice).opens()
		h.trail.expect(t, []audit.Kind{audit.Command},
			"command ssh 192.0.2.1: on_close would be forgotten if the daemon were killed: the kernel says no",
			"command ssh 192.0.2.1: on_open: exit code 0 after 0s")
		time.Sleep(window)
		l.expect("all the same", "open for 192.0.2.1 opened", "close for 192.0.2.1 expired")
		h.trail.expect(t, []audit.Kind{audit.Command},
			"command ssh 192.0.2.1: on_close: would be run again by the next daemon: the kernel says no",
			"command ssh 192.0.2.1: on_close: exit code 0 after 0s")
	})
}

func TestAWindowThatIsOpenedByHandHasItsCommands(t *testing.T) {
	l := newLogbook(t)
	guarded(t, config(commanded(l)), func(h *host) {
		if _, err := h.wall.Open("ssh", "192.0.2.1", time.Minute); err != nil {
			h.t.Fatal(err)
		}
		l.expect("opened", "open for 192.0.2.1 opened")
		time.Sleep(time.Minute)
		l.expect("over", "close for 192.0.2.1 expired")
	})
}

func TestAWindowThatIsNotOpenedRunsNothing(t *testing.T) {
	l := newLogbook(t)
	guarded(t, config(commanded(l)), func(h *host) {
		h.failing("OpenWindows", errInjected)
		h.client(alice).opens()
		l.expect("not opened")
		if n := h.due.Len(); n != 0 {
			h.t.Errorf("%d commands are due", n)
		}
	})
}

func TestACommandThatIsInterruptedHasAnEvent(t *testing.T) {
	var got trail
	opened := audit.Event{Kind: audit.Opened, Door: "ssh", Source: single(alice)}
	wall.EndedAtTheEnd(&notebook{}, got.Record, opened)
	got.expectFailed(t, audit.CodeInterrupted)
	got.expect(t, nil, "command ssh 192.0.2.1: on_open: knockwall stops")
}

func TestACommandThatCannotBeRunHasAnEventAfterThatOfItsWindow(t *testing.T) {
	d := commanded(newLogbook(t))
	d.OnClose = nil
	guarded(t, config(d), func(h *host) {
		h.wall.EndCommands()
		h.client(alice).opens()
		h.trail.expectFailed(t, audit.CodeNotRun)
		h.trail.expect(t, []audit.Kind{audit.Opened, audit.Command},
			"opened ssh 192.0.2.1 3/3",
			"command ssh 192.0.2.1: on_open: not run: too many commands are waiting, or knockwall is stopping")
	})
}

// expectFailed checks that the last event has failed, and has a code.
func (t *trail) expectFailed(tb testing.TB, code audit.Code) {
	tb.Helper()
	all := t.past()
	if len(all) == 0 {
		tb.Fatal("there is no event")
	}
	if e := all[len(all)-1]; e.Code != code || !e.Failed || e.Priority() != audit.Error {
		tb.Errorf("%s: the code is %q, failed is %t, and the priority %d", e, e.Code, e.Failed, e.Priority())
	}
}

// A reader of the event may kill the daemon at once: the on_close is stored by then.
func TestAnOnCloseIsStoredBeforeTheEventOfItsWindow(t *testing.T) {
	d := commanded(newLogbook(t))
	d.OnOpen = nil
	guarded(t, config(d), func(h *host) {
		opened := 0
		h.trail.watch(func(e audit.Event) {
			if e.Kind != audit.Opened {
				return
			}
			opened++
			if n := h.due.Len(); n != 1 {
				t.Errorf("at %s, %d commands are due, want 1", e, n)
			}
		})
		h.client(alice).opens()
		if opened != 1 {
			t.Errorf("the door was opened %d times, want once", opened)
		}
	})
}
