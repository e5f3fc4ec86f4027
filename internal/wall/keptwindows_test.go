package wall_test

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// shelf is a [wall.WindowStore] in memory.
type shelf struct {
	table      string
	generation uint32
	windows    []wall.KeptWindow
	saved      time.Time
	err        error // of Save and Load
}

func (s *shelf) Save(table string, generation uint32, windows iter.Seq[wall.KeptWindow]) error {
	s.table, s.generation, s.windows, s.saved = table, generation, slices.Collect(windows), time.Now()
	return s.err
}

func (s *shelf) Load(table string, isCurrent func(uint32) bool, take func(wall.KeptWindow)) (bool, error) {
	if s.err != nil || table != s.table || !isCurrent(s.generation) {
		return false, s.err
	}
	for _, w := range s.windows {
		w.Left, w.Age = w.Left-time.Since(s.saved), w.Age+time.Since(s.saved)
		take(w)
	}
	return true, nil
}

func (s *shelf) Forget() error {
	s.table = ""
	return nil
}

// asked counts the calls that begin with a prefix.
func (k *kernel) asked(prefix string) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, call := range k.calls {
		if strings.HasPrefix(call, prefix) {
			n++
		}
	}
	return n
}

// A daemon that stops leaves a copy of its windows, so that the next one need not ask the
// kernel. If tables have changed since, or there is no copy, it asks.
func TestTheNextDaemonHasTheWindowsOfTheOneBefore(t *testing.T) {
	for name, test := range map[string]struct {
		between func(k *kernel, s *shelf)
		asks    int
		open    string
	}{
		"nothing happens":                  {func(*kernel, *shelf) {}, 0, "alice, bob"},
		"another process closes a window":  {func(k *kernel, _ *shelf) { _, _ = k.CloseWindow("knockwall", "ssh", single(bob)) }, 1, "alice"},
		"the copy cannot be read":          {func(_ *kernel, s *shelf) { s.err = errInjected }, 1, "alice, bob"},
		"the daemon before kept no copy":   {func(_ *kernel, s *shelf) { s.table = "" }, 1, "alice, bob"},
		"another process removes the wall": {func(k *kernel, _ *shelf) { k.flush("knockwall") }, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(t)
				k.kept = &shelf{}
				c := config(sshDoor())
				h := k.newHost()
				if err := h.raise(c); err != nil {
					t.Fatal(err)
				}
				h.run()
				for _, who := range []netip.Addr{alice, bob} {
					h.client(who).knock(7000, 8000, 9000)
					synctest.Wait()
				}
				time.Sleep(window / 3)
				h.stop()
				if err := <-h.ended; err != nil {
					t.Fatal(err)
				}
				test.between(k, k.kept)
				time.Sleep(window / 3)
				k.changes()
				h = k.newHost()
				if err := h.raise(c); err != nil {
					t.Fatal(err)
				}
				h.run()
				if n := k.asked("Windows"); n != test.asks {
					t.Errorf("the kernel was asked %d times, want %d", n, test.asks)
				}
				var open []string
				for _, w := range h.wall.Windows(wall.WindowQuery{}) {
					open = append(open, map[packet.Source]string{single(alice): "alice", single(bob): "bob"}[w.Source])
					if want := (window - 2*(window/3)).Seconds(); w.LeftSeconds > want+0.1 || w.LeftSeconds < want-0.1 {
						t.Errorf("%s has %.2f s left, want %.2f", w.Source, w.LeftSeconds, want)
					}
				}
				if got := strings.Join(open, ", "); got != test.open {
					t.Errorf("open are %q, want %q", got, test.open)
				}
				if k.kept.table != "" {
					t.Error("the copy is still there")
				}
			})
		})
	}
}

// While a daemon stops, nobody puts back what another process changes. So there is no copy
// that says otherwise.
func TestThereIsNoCopyOfATableThatOthersHaveChanged(t *testing.T) {
	for name, test := range map[string]struct {
		tables []string
		kept   bool
	}{
		"the wall's":     {[]string{"other", "knockwall"}, false},
		"not known":      {nil, false},
		"somebody's own": {[]string{"other"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(t)
				k.kept = &shelf{}
				h := k.newHost()
				if err := h.raise(config(sshDoor())); err != nil {
					t.Fatal(err)
				}
				h.run()
				told := make(chan struct{})
				h.once("Install", func() { // the stopping daemon's
					go func() {
						defer close(told)
						k.tell(nft.Change{Tables: test.tables, By: "nft (1)"})
					}()
				})
				h.stop()
				if err := <-h.ended; err != nil {
					t.Fatal(err)
				}
				<-told
				if kept := k.kept.table != ""; kept != test.kept {
					t.Errorf("there is a copy: %t", kept)
				}
			})
		})
	}
}

// A copy that cannot be written is no reason not to stop.
func TestACopyThatCannotBeWrittenIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(t)
		k.kept = &shelf{err: errInjected}
		h := k.newHost()
		if err := h.raise(config(sshDoor())); err != nil {
			t.Fatal(err)
		}
		h.run()
		h.trail.take()
		h.stop()
		if err := <-h.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		h.trail.expect(t, nil, "stopped: the wall stays: open windows admit until they end, and strangers are refused; "+
			"the next daemon has to ask the kernel for the windows: "+errInjected.Error())
	})
}

// A reload of a table that nobody else can have changed reads none of its windows.
func TestAReloadOfAnOwnTableReadsNoWindows(t *testing.T) {
	for _, ownership := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(t)
			k.ownership = ownership
			h := k.newHost()
			if err := h.raise(config(sshDoor(), door("web", 443, 7001))); err != nil {
				t.Fatal(err)
			}
			h.run()
			a := h.client(alice)
			a.knock(7000, 8000, 9000)
			a.knock(7001)
			synctest.Wait()
			h.changes()
			if err := h.raise(config(door("new", 80, 7002), sshDoor())); err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 0, false: 1}[ownership]; h.asked("Windows") != want {
				t.Errorf("owned %t: the kernel is asked for windows %d times, want %d", ownership, h.asked("Windows"), want)
			}
			if open := h.wall.Windows(wall.WindowQuery{}); len(open) != 1 || open[0].Door != "ssh" {
				t.Errorf("owned %t: open are %+v", ownership, open)
			}
			h.expect("her window at the door that stays", a.dial(22), accepted)
		})
	}
}

// Windows that a killed daemon has left, and that are too many to read, admit without being
// known, and the status says so.
func TestWindowsThatAreTooManyToRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(t)
		h := k.newHost()
		h.found(config(sshDoor()), 0, nft.Window{Door: "ssh", Source: single(alice), Left: window}, nft.Window{Door: "ssh", Source: single(bob), Left: window})
		k.readable = 1
		if err := h.raise(config(sshDoor())); err != nil {
			t.Fatal(err)
		}
		h.run()
		s := h.status()
		if len(s.Windows) != 1 || len(s.Findings) != 1 || s.Findings[0].Severity != doctor.Warning || !strings.Contains(s.Findings[0].Problem, "were not read admit until they end") {
			t.Errorf("windows %+v, findings %+v", s.Windows, s.Findings)
		}
		for _, who := range []netip.Addr{alice, bob} {
			h.expect("a window from before", h.client(who).dial(22), accepted)
		}
	})
}

// Very many windows that end at once do not end in one piece, as first packets would wait.
func TestManyWindowsEnd(t *testing.T) {
	guarded(t, config(door("web", 443, 7001)), func(h *host) {
		const many = 10_000
		for i := range many {
			source := netip.AddrFrom4([4]byte{20 + byte(i%50), 0, byte(i >> 8), byte(i)})
			if _, err := h.wall.Open("web", source.String(), window); err != nil {
				t.Fatal(err)
			}
		}
		if n := h.status().Doors[0].OpenWindows; n != many {
			t.Fatalf("%d windows are open", n)
		}
		time.Sleep(window + time.Second)
		synctest.Wait()
		if s := h.status(); s.Doors[0].OpenWindows != 0 || s.Doors[0].Counters.Expired != many {
			t.Errorf("%d windows are open, and %d have expired", s.Doors[0].OpenWindows, s.Doors[0].Counters.Expired)
		}
	})
}
