package wall_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// teller is a host with a history of events.
type teller struct {
	*host
	history *audit.History
}

// telling runs f in a bubble, with a host behind a running wall and a history of events.
func telling(t *testing.T, c *ruleset.Config, f func(h *teller)) {
	synctest.Test(t, func(t *testing.T) {
		h := &teller{newHost(t), audit.NewHistory()}
		h.wall = wall.New(h.edges(), audit.Sinks{h.trail, h.history})
		if err := h.raise(c); err != nil {
			t.Fatal(err)
		}
		h.run()
		time.Sleep(time.Minute) // so that the wall has been installed for a while
		f(h)
	})
}

func (h *teller) explain(address string) []wall.Explanation {
	h.t.Helper()
	synctest.Wait()
	all, err := h.wall.Explain(address, h.history.Past)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// because checks the explanation for a source at the first door. The sentence is the part
// after "192.0.2.1 is not let in: ", without the full stop.
func (h *teller) because(addr netip.Addr, why wall.Why, since time.Time, sentence string) {
	h.t.Helper()
	in := why == wall.Trusted || why == wall.WindowOpen
	want := wall.Explanation{
		Door: "ssh", Source: single(addr), In: in, Reason: why, Since: since,
		Sentence: fmt.Sprintf("%s is %s: %s.", addr, map[bool]string{true: "let in", false: "not let in"}[in], sentence),
	}
	if diff := cmp.Diff(want, h.explain(addr.String())[0], compareSources); diff != "" {
		h.t.Errorf("explained (-want +got):\n%s", diff)
	}
}

// at formats a time as a sentence does.
func at(t time.Time, ago string) string {
	return fmt.Sprintf("%s (%s ago)", t.Format(time.TimeOnly), ago)
}

var unknown time.Time // for explanations without a time

func TestExplainSaysThatASourceIsTrusted(t *testing.T) {
	trusts := netip.MustParsePrefix("192.0.2.0/30")
	byWall, byDoor := config(sshDoor()), config(sshDoor(), door("web", 443, 7001))
	byWall.Wall.Trusted = []netip.Prefix{trusts}
	byDoor.Doors[0].Trusted = []netip.Prefix{trusts}
	for _, c := range []*ruleset.Config{byWall, byDoor} {
		telling(t, c, func(h *teller) {
			h.client(alice).knock(7000)
			h.because(alice, wall.Trusted, unknown, "it is trusted, and need not knock")
			if got := h.explain("192.0.2.4")[0]; got.In || got.Reason != wall.NeverKnocked {
				h.t.Errorf("who is not: %+v", got)
			}
			if c == byDoor {
				if got := h.explain(alice.String())[1]; got.Door != "web" || got.In || got.Reason != wall.NeverKnocked {
					h.t.Errorf("at another door: %+v", got)
				}
			}
		})
	}
}

func TestExplainFollowsASourceThatKnocks(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		a := h.client(alice)
		a.knock(7000)
		synctest.Wait()
		started := time.Now()
		h.because(alice, wall.Knocking, started, "it has knocked 1 of 3 so far, and has 5s left for the rest")
		time.Sleep(1230 * time.Millisecond)
		a.knock(8000)
		h.because(alice, wall.Knocking, started, "it has knocked 2 of 3 so far, and has 3.8s left for the rest")
		a.knock(9000)
		opened := time.Now()
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
		time.Sleep(window - 1234*time.Millisecond)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 1.2s")
		time.Sleep(time.Second)
		a.knock(7000, 8000, 9000)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
		opened = opened.Add(window - 234*time.Millisecond)
		time.Sleep(window)
		over := opened.Add(window)
		h.because(alice, wall.WindowOver, over, "its window is over since "+at(over, "0s")+"; it has to knock again")
		time.Sleep(90 * time.Second)
		h.because(alice, wall.WindowOver, over, "its window is over since "+at(over, "1m30s")+"; it has to knock again")
		time.Sleep(23 * time.Hour)
		h.because(alice, wall.WindowOver, over, "its window is over since "+over.Format(time.DateTime)+" (23h1m30s ago); it has to knock again")
		a.knock(7000)
		h.because(alice, wall.Knocking, time.Now(), "it has knocked 1 of 3 so far, and has 5s left for the rest")
		h.because(bob, wall.NeverKnocked, unknown,
			"no knock from it was received; knocks are remembered since the daemon started, at "+h.status().Since.Format(time.DateTime)+" (23h3m31s ago)")
	})
}

func TestExplainSaysThatAWindowIsSpent(t *testing.T) {
	telling(t, config(limited(sshDoor(), 2)), func(h *teller) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.expect("the first", a.dial(22), accepted)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
		h.expect("the last", a.dial(22), accepted)
		exhausted := "it has knocked, and has already made max_connections connections (2); it has to knock again"
		h.because(alice, wall.Exhausted, unknown, exhausted)
		h.expect("one too many", a.dial(22), waiting)
		time.Sleep(window / 2)
		h.because(alice, wall.Exhausted, unknown, exhausted)
		a.knock(7000)
		h.because(alice, wall.Knocking, time.Now(), "it has knocked 1 of 3 so far, and has 5s left for the rest")
		time.Sleep(window)
		if got := h.explain(alice.String())[0]; got.Reason != wall.TooLate {
			h.t.Errorf("then: %+v", got)
		}
		// The window would be over by then, and the source has not knocked since: explain
		// says what happened to the window.
		a.knock(7000, 8000, 9000)
		h.expect("the first", a.dial(22), accepted)
		h.expect("the last", a.dial(22), accepted)
		spent := time.Now()
		time.Sleep(window)
		h.because(alice, wall.WindowClosed, spent, "its window was closed at "+at(spent, "30s")+": max_connections is reached")
	})
}

// The kernel may refuse to close a spent window; it stays open until its timeout.
func TestAWindowThatCouldNotBeClosedIsOver(t *testing.T) {
	telling(t, config(limited(sshDoor(), 1)), func(h *teller) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		h.failing("CloseWindow", errInjected)
		h.expect("her only one", a.dial(22), accepted)
		time.Sleep(window)
		h.because(alice, wall.WindowOver, unknown, "its window is over; it has to knock again")
	})
}

func TestExplainSaysThatAWindowWasClosedByHand(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		h.client(alice).knock(7000, 8000, 9000)
		synctest.Wait()
		time.Sleep(window / 2)
		if _, err := h.wall.Close("ssh", alice.String(), false); err != nil {
			h.t.Fatal(err)
		}
		closed := time.Now()
		time.Sleep(3 * time.Second)
		h.because(alice, wall.WindowClosed, closed, "its window was closed at "+at(closed, "3s")+": by hand")
	})
}

func TestExplainSaysThatNewRulesHaveClosedAWindow(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		h.client(alice).knock(7000, 8000, 9000)
		synctest.Wait()
		h.reload(config(door("web", 443, 7001)))
		h.reload(config(sshDoor()))
		h.because(alice, wall.WindowClosed, time.Now(),
			"its window was closed at "+at(time.Now(), "0s")+": the new rules have no such door, or its source_prefix has changed")
	})
}

func TestExplainSaysThatASourceKnocksInTheWrongOrder(t *testing.T) {
	for _, tt := range []struct {
		ports []uint16
		right int // knocks, when it was wrong
	}{
		{[]uint16{7000, 8000, 7000}, 2},
		{[]uint16{7000, 9000, 8000}, 1},
		{[]uint16{8000, 9000, 7000}, 0},
		{[]uint16{9000, 8000, 7000}, 0},
		{[]uint16{7000, 8000, 7000, 9000, 8000}, 1},
		{[]uint16{7000, 7000, 8000, 8000, 7000}, 2}, // dialled again, which is no matter
		{[]uint16{8000, 9000}, 0},
	} {
		t.Run(fmt.Sprint(tt.ports), func(t *testing.T) {
			telling(t, config(sshDoor()), func(h *teller) {
				a := h.client(alice)
				var wrong time.Time
				for i, port := range tt.ports {
					time.Sleep(100 * time.Millisecond)
					a.knock(port)
					if i+1 == len(tt.ports) {
						wrong = time.Now()
					}
				}
				const late = "5.1s"
				// While there is time, a new attempt may follow, unless that one has
				// failed as well.
				if got := h.explain(alice.String())[0]; got.In || got.Reason != wall.Knocking && got.Reason != wall.WrongOrder {
					h.t.Errorf("at once: %+v", got)
				}
				sentence := fmt.Sprintf("it knocked in the wrong order at %%s, after %d of 3 right knocks", tt.right)
				time.Sleep(5100 * time.Millisecond)
				h.because(alice, wall.WrongOrder, wrong, fmt.Sprintf(sentence, at(wrong, late)))
				time.Sleep(time.Minute)
				h.because(alice, wall.WrongOrder, wrong, fmt.Sprintf(sentence, at(wrong, "1m5s")))
			})
		})
	}
}

// Each knock after a wrong one ends an attempt of its own. What counts is where the client went
// wrong.
func TestExplainSaysHowManyKnocksWereRightBeforeTheRestWasWrong(t *testing.T) {
	telling(t, config(door("ssh", 22, 7000, 8000, 9000, 9500)), func(h *teller) {
		a := h.client(alice)
		var wrong time.Time
		for i, port := range []uint16{7000, 9000, 8000, 9500} {
			time.Sleep(100 * time.Millisecond)
			a.knock(port)
			if i == 2 {
				wrong = time.Now()
			}
		}
		time.Sleep(time.Second)
		h.because(alice, wall.WrongOrder, wrong, "it knocked in the wrong order at "+at(wrong, "1.1s")+", after 1 of 4 right knocks")
	})
}

func TestExplainSaysThatTheFirstKnockIsMissing(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		a := h.client(alice)
		a.knock(8000)
		synctest.Wait()
		late := time.Now().Add(5 * time.Second)
		time.Sleep(5 * time.Second)
		began := late.Add(-5 * time.Second)
		h.because(alice, wall.WrongOrder, began, "it knocked in the wrong order at "+at(began, "5s")+", after 0 of 3 right knocks")
		time.Sleep(100 * time.Millisecond)
		h.because(alice, wall.WrongOrder, late,
			"it knocked in the wrong order at "+at(late, "100ms")+", after 0 of 3 right knocks")
	})
}

// Housekeeping records a timeout once a second, and later if an older attempt at another
// door has more time. Explain knows of it before that.
func TestExplainSaysThatASourceKnocksTooSlowly(t *testing.T) {
	slow := door("web", 443, 7001, 8001)
	slow.SequenceTimeout = time.Minute
	for _, c := range []*ruleset.Config{config(sshDoor()), config(sshDoor(), slow)} {
		telling(t, c, func(h *teller) {
			h.client(bob).knock(7001)
			synctest.Wait()
			time.Sleep(300 * time.Millisecond)
			a := h.client(alice)
			a.knock(7000, 8000)
			synctest.Wait()
			began := time.Now()
			late := began.Add(5 * time.Second)
			time.Sleep(5 * time.Second)
			h.because(alice, wall.Knocking, began, "it has knocked 2 of 3 so far, and has 0s left for the rest")
			time.Sleep(100 * time.Millisecond)
			h.trail.expect(h.t, []audit.Kind{audit.Reset})
			h.because(alice, wall.TooLate, late, "it knocked too slowly: by "+at(late, "100ms")+" only 2 of 3 had come within 5s")
			time.Sleep(2 * time.Second)
			got := h.explain(alice.String())[0]
			if got.Reason != wall.TooLate || got.Since.Before(late) || got.Since.After(late.Add(time.Second)) ||
				!strings.HasSuffix(got.Sentence, " only 2 of 3 had come within 5s.") {
				h.t.Errorf("when it is noted: %+v", got)
			}
			a.knock(9000) // it goes on after its time
			synctest.Wait()
			time.Sleep(6 * time.Second)
			if got := h.explain(alice.String())[0]; got.Reason != wall.TooLate || !strings.HasSuffix(got.Sentence, " only 2 of 3 had come within 5s.") {
				h.t.Errorf("after the rest of its knocks: %+v", got)
			}
			a.knock(9000)
			synctest.Wait()
			time.Sleep(6 * time.Second)
			if got := h.explain(alice.String())[0]; got.Reason != wall.WrongOrder {
				h.t.Errorf("after another wrong knock: %+v", got)
			}
		})
	}
}

// unremembered is the sentence for an attempt whose end is unknown.
const unremembered = ", and the end of its attempt is not remembered: other rules came into force, or too many sources knocked at once"

func TestExplainSaysThatAnAttemptWasDroppedForOthers(t *testing.T) {
	c := config(sshDoor())
	c.Wall.MaxSources = 1
	telling(t, c, func(h *teller) {
		h.client(alice).knock(7000, 8000) // the second of which is summed up
		synctest.Wait()
		last := time.Now()
		time.Sleep(time.Second)
		h.client(bob).knock(7000)
		synctest.Wait()
		time.Sleep(time.Second)
		forgotten := "it knocked 2 of 3 until " + at(last, "2s") + unremembered
		h.because(alice, wall.Forgotten, last, forgotten)
		h.because(bob, wall.Knocking, last.Add(time.Second), "it has knocked 1 of 3 so far, and has 4s left for the rest")
	})
}

func TestExplainSaysThatNewRulesHaveForgottenKnocks(t *testing.T) {
	longer := withKnock(sshDoor(), tcp(9999))
	telling(t, config(sshDoor()), func(h *teller) {
		h.client(alice).knock(7000)
		synctest.Wait()
		last := time.Now()
		time.Sleep(time.Second)
		h.reload(config(longer))
		h.because(alice, wall.Forgotten, last, "it knocked 1 of 3 until "+at(last, "1s")+unremembered)
	})
}

func TestExplainSaysThatADoorCouldNotBeOpened(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		a := h.client(alice)
		h.failing("OpenWindows", errInjected)
		// Earlier and later refusals do not hide it, though they are of the same kind.
		h.expect("before", a.dial(22), waiting)
		time.Sleep(time.Second)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		failed := time.Now()
		h.expect("after", a.dial(22), waiting)
		time.Sleep(time.Second)
		h.because(alice, wall.NotOpened, failed, "it has knocked, and the door could not be opened at "+at(failed, "1s")+": "+errInjected.Error())

		if _, err := h.wall.Open("ssh", bob.String(), 0); !errors.Is(err, errInjected) {
			h.t.Fatalf("Open: %v", err)
		}
		h.because(bob, wall.NotOpened, time.Now(), "the door could not be opened at "+at(time.Now(), "0s")+": "+errInjected.Error())
		h.failing("nothing", nil)
		a.knock(7000, 8000, 9000)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
	})
}

// A window that is not refreshed stays as it was.
func TestAWindowThatCouldNotBeRefreshedIsOpen(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		time.Sleep(10 * time.Second)
		h.failing("OpenWindows", errInjected)
		a.knock(7000, 8000, 9000)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 20s")
	})
}

func TestExplainSaysThatASourceHasNeverKnocked(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		since := h.status().Since
		heard := "no knock from it was received; knocks are remembered since the daemon started, at " + at(since, "1m")
		h.because(alice, wall.NeverKnocked, unknown, heard)
		h.client(alice).dial(22)
		time.Sleep(2 * time.Second)
		tried := time.Now().Add(hold - 2*time.Second) // when its time to knock was over
		heard = "no knock from it was received; knocks are remembered since the daemon started, at " + at(since, "1m2s")
		h.because(alice, wall.NeverKnocked, unknown, heard+"; it tried to connect, the last time at "+at(tried, "1.8s"))
		h.because(bob, wall.NeverKnocked, unknown, heard)
		// Later tries are summed up, and count all the same.
		h.client(alice).dial(22)
		time.Sleep(time.Second)
		heard = "no knock from it was received; knocks are remembered since the daemon started, at " + at(since, "1m3s")
		h.because(alice, wall.NeverKnocked, unknown, heard+"; it tried to connect, the last time at "+at(time.Now().Add(hold-time.Second), "800ms"))
	})
}

// stranger returns one of many sources.
func stranger(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}) }

func TestWhileManyKnockNotEachIsRemembered(t *testing.T) {
	telling(t, config(sshDoor(), door("web", 443, 7001)), func(h *teller) {
		for n := range audit.HistorySize {
			h.client(stranger(n)).knock(7000)
			if n%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		many := time.Now()
		time.Sleep(time.Second)
		heard := "no knock from it was received; knocks are remembered since the daemon started, at " + at(h.status().Since, "1m1s")
		h.because(alice, wall.NeverKnocked, unknown, heard+"; at "+at(many, "1s")+" so many knocks came at once that not each of them is remembered")
		if got := h.explain(alice.String())[1]; strings.Contains(got.Sentence, "so many") {
			h.t.Errorf("nobody knocks at web: %s", got.Sentence)
		}
		// A source whose knocks have no event of their own is still known while its
		// attempt lasts.
		h.because(stranger(500), wall.Knocking, many, "it has knocked 1 of 3 so far, and has 4s left for the rest")
	})
}

// The start of the complete history is known even after more events than it holds.
func TestWhatWasBeforeTheKnocksThatAreRememberedIsNotKnown(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		h.client(alice).knock(7000, 8000, 9000)
		synctest.Wait()
		opened := time.Now()
		h.client(bob).knock(7000)
		synctest.Wait()
		// A source knocks every two seconds, and times out six seconds later.
		for n := range audit.HistorySize {
			h.client(stranger(n)).knock(7000)
			time.Sleep(2 * time.Second)
		}
		synctest.Wait()
		now := time.Now()
		got := h.explain(bob.String())[0]
		var first audit.Event
		for _, e := range h.history.Past() {
			if e.Kind == audit.Knock || e.Kind == audit.Reset {
				first = e
				break
			}
		}
		want := fmt.Sprintf("%s is not let in: no knock from it is remembered; the daemon remembers the last 1000 of all sources, those since %s (%s ago).",
			bob, first.Time.Format(time.TimeOnly), now.Sub(first.Time).Round(time.Second))
		if got.Reason != wall.NeverKnocked || got.Sentence != want {
			h.t.Errorf("%+v, want %s", got, want)
		}
		// That does not drop the events of windows.
		over := opened.Add(window)
		h.because(alice, wall.WindowOver, over, fmt.Sprintf("its window is over since %s (%s ago); it has to knock again",
			over.Format(time.TimeOnly), now.Sub(over).Round(time.Second)))
	})
}

// Sources that connect often can drop the events of windows from the history, but not
// those of knocks.
func TestAWindowOfWhichOnlyTheKnocksAreRememberedIsOver(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		h.client(alice).knock(7000, 8000, 9000)
		synctest.Wait()
		knocked := time.Now()
		time.Sleep(window)
		synctest.Wait()
		for range audit.HistorySize {
			h.history.Record(audit.Event{Time: time.Now(), Kind: audit.Accepted, Door: "ssh", Source: single(bob), Count: 1})
		}
		h.because(alice, wall.WindowOver, unknown, "the window that it knocked for at "+at(knocked, "30s")+" is over; it has to knock again")
	})
}

func TestEachDoorExplainsItselfByTheSourcesThatItKnows(t *testing.T) {
	wide := door("web", 443, 7001)
	wide.SourcePrefix = packet.SourcePrefix{IPv4: 24, IPv6: 64}
	type answer struct {
		door, source string
		reason       wall.Why
		in           bool
	}
	telling(t, config(wide, sshDoor()), func(h *teller) {
		h.client(alice).knock(7001)
		h.client(alice).knock(7000)
		six := h.client(netip.MustParseAddr("2001:db8::7"))
		six.knock(7001, 7000, 8000, 9000)
		synctest.Wait()
		for _, tt := range []struct {
			address string
			want    []answer
		}{
			{"192.0.2.1", []answer{
				{"web", "192.0.2.0/24", wall.WindowOpen, true}, {"ssh", "192.0.2.1", wall.Knocking, false}}},
			{"::ffff:192.0.2.1", []answer{
				{"web", "192.0.2.0/24", wall.WindowOpen, true}, {"ssh", "192.0.2.1", wall.Knocking, false}}},
			{"192.0.2.77", []answer{ // its neighbour has knocked
				{"web", "192.0.2.0/24", wall.WindowOpen, true}, {"ssh", "192.0.2.77", wall.NeverKnocked, false}}},
			{"192.0.2.0/24", []answer{
				{"web", "192.0.2.0/24", wall.WindowOpen, true}, {"ssh", "192.0.2.0", wall.NeverKnocked, false}}},
			{"192.0.2.1/32", []answer{
				{"web", "192.0.2.0/24", wall.WindowOpen, true}, {"ssh", "192.0.2.1", wall.Knocking, false}}},
			{"2001:db8::7", []answer{
				{"web", "2001:db8::/64", wall.WindowOpen, true}, {"ssh", "2001:db8::7", wall.WindowOpen, true}}},
			{"2001:db8::8", []answer{
				{"web", "2001:db8::/64", wall.WindowOpen, true}, {"ssh", "2001:db8::8", wall.NeverKnocked, false}}},
			{"2001:db8:0:1::7", []answer{
				{"web", "2001:db8:0:1::/64", wall.NeverKnocked, false}, {"ssh", "2001:db8:0:1::7", wall.NeverKnocked, false}}},
		} {
			var got []answer
			for _, e := range h.explain(tt.address) {
				got = append(got, answer{e.Door, e.Source.String(), e.Reason, e.In})
				if !strings.HasPrefix(e.Sentence, e.Source.String()+" is ") {
					h.t.Errorf("%s: %s", tt.address, e.Sentence)
				}
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(answer{})); diff != "" {
				h.t.Errorf("%s (-want +got):\n%s", tt.address, diff)
			}
		}
	})
}

func TestWhereThereIsNoDoorNothingIsExplained(t *testing.T) {
	telling(t, config(), func(h *teller) {
		if got := h.explain("192.0.2.1"); got == nil || len(got) != 0 {
			h.t.Errorf("explained: %#v", got)
		}
	})
}

func TestAnAddressThatCannotBeASourceIsNotExplained(t *testing.T) {
	telling(t, config(sshDoor()), func(h *teller) {
		for _, address := range []string{
			"", "example.org", "192.0.2", "192.0.2.256", "192.0.2.0/24", "192.0.2.1/33", "2001:db8::/64", "0.0.0.0/0", "2001:db8::1%eth0",
			"0.0.0.0", "::", "127.0.0.1", "::1", "::ffff:127.0.0.1", "224.0.0.1", "ff02::1", "255.255.255.255", "192.0.2.1 ", "192.0.2.1,192.0.2.2",
		} {
			if got, err := h.wall.Explain(address, h.history.Past); !errors.Is(err, wall.ErrBadSource) || got != nil {
				h.t.Errorf("%q: %+v, %v", address, got, err)
			}
		}
	})
}

func TestNothingIsExplainedBeforeTheWallIsInstalled(t *testing.T) {
	w := wall.New(wall.Edges{}, audit.Sinks{})
	if got, err := w.Explain("192.0.2.1", audit.NewHistory().Past); err == nil || errors.Is(err, wall.ErrBadSource) {
		t.Errorf("Explain: %+v, %v", got, err)
	}
}

// Explain says when an admitted source never gets a reply, unless it got any. It checks
// admitted sources only, and says so if the check fails.
func TestExplainSaysThatASourceIsAdmittedAndNotAnswered(t *testing.T) {
	var seen []sessions.Seen
	var unknown error
	synctest.Test(t, func(t *testing.T) {
		h := &teller{newHost(t), audit.NewHistory()}
		h.directions = func(each func(sessions.Session, sessions.Seen)) error {
			for _, s := range seen {
				each(session(packet.Port{Number: 22, Protocol: packet.TCP}, alice), s)
				each(session(packet.Port{Number: 22, Protocol: packet.TCP}, bob), sessions.Both)
				each(session(packet.Port{Number: 443, Protocol: packet.TCP}, alice), sessions.Both)
			}
			return unknown
		}
		h.wall = wall.New(h.edges(), audit.Sinks{h.trail, h.history})
		if err := h.raise(config(sshDoor())); err != nil {
			t.Fatal(err)
		}
		h.run()
		a := h.client(alice)
		const goesOn = " It has an open connection to 22/tcp, which goes on: only new ones are refused."
		for before, says := range map[sessions.Seen]string{sessions.Both: goesOn, sessions.Over: ".", sessions.ToService: "."} {
			seen = []sessions.Seen{before, before}
			if e := h.explain("192.0.2.1")[0]; e.In || e.Reason != wall.NeverKnocked || !strings.HasSuffix(e.Sentence, says) || strings.Contains(e.Sentence, goesOn) != (says == goesOn) {
				t.Errorf("a connection from before the wall, %v: %+v", before, e)
			}
		}
		seen, unknown = nil, errInjected
		if e := h.explain("192.0.2.1")[0]; strings.Contains(e.Sentence, "unknown") {
			t.Errorf("it is not let in, and replies do not matter: %+v", e)
		}
		a.knock(7000, 8000, 9000)
		for _, test := range []struct {
			seen []sessions.Seen
			err  error
			why  wall.Why
			says string
		}{
			{nil, nil, wall.WindowOpen, "is let in"},
			{[]sessions.Seen{sessions.Both}, nil, wall.WindowOpen, "is let in"},
			{[]sessions.Seen{sessions.ToService}, nil, wall.NotAnswered, "192.0.2.1 was accepted here, and never answered: it tried to connect to 22/tcp, and nothing came back"},
			{[]sessions.Seen{sessions.ToService, sessions.Both}, nil, wall.WindowOpen, "is let in"},
			{nil, errInjected, wall.WindowOpen, "It is unknown whether its connections get replies: the kernel says no."},
		} {
			seen, unknown = test.seen, test.err
			e := h.explain("192.0.2.1")[0]
			if e.Reason != test.why || !e.In || !strings.Contains(e.Sentence, test.says) {
				t.Errorf("%v, %v: %+v", test.seen, test.err, e)
			}
		}
	})
}

// A SYN of a source with a window that comes again was dropped behind the wall: the kernel
// does not queue the repetition of one that was delivered.
func TestExplainSaysThatTheSYNOfAnAdmittedSourceComesAgain(t *testing.T) {
	const comes = "its SYN to 22/tcp has come 3 times. Something behind the wall drops it: another firewall of this host, or of the machine that the port is forwarded to."
	again := func(h *teller, j *journey, times int) {
		for range times {
			time.Sleep(retransmitted)
			h.send(j.packet)
		}
		synctest.Wait()
	}
	t.Run("without a limit", func(t *testing.T) {
		telling(t, config(sshDoor()), func(h *teller) {
			a := h.client(alice)
			a.knock(7000, 8000, 9000)
			synctest.Wait()
			j := a.dial(22)
			h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
			h.send(j.packet) // the network duplicates packets
			h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
			again(h, j, 2)
			e := h.explain(alice.String())[0]
			if want := "192.0.2.1 is let in, and is not answered: " + comes; !e.In || e.Reason != wall.NotAnswered || e.Sentence != want {
				h.t.Errorf("%+v, want %s", e, want)
			}
			a.dial(22)
			h.because(alice, wall.WindowOpen, unknown, "its window is open for another 28s") // nothing is known of that one
			again(h, j, 1)
			time.Sleep(window)
			synctest.Wait()
			e = h.explain(alice.String())[0]
			if want := "While the window was open, its SYN to 22/tcp came 4 times, so something behind the wall dropped it: "; e.Reason != wall.WindowOver || !strings.Contains(e.Sentence, want) {
				h.t.Errorf("%+v, want %s", e, want)
			}
		})
	})
	t.Run("with a limit", func(t *testing.T) {
		telling(t, config(limited(sshDoor(), 1)), func(h *teller) {
			h.losing = true
			a := h.client(alice)
			a.knock(7000, 8000, 9000)
			synctest.Wait()
			j := a.dial(22)
			synctest.Wait()
			again(h, j, 2)
			e := h.explain(alice.String())[0]
			if want := "it has to knock again. Its last connection is not answered: " + comes; e.In || e.Reason != wall.Exhausted || !strings.HasSuffix(e.Sentence, want) {
				h.t.Errorf("%+v, want %s", e, want)
			}
		})
	})
	t.Run("answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := &teller{newHost(t), audit.NewHistory()}
			h.directions = func(each func(sessions.Session, sessions.Seen)) error {
				each(session(tcp(22), alice), sessions.Both) // the last repetition arrived
				return nil
			}
			h.wall = wall.New(h.edges(), audit.Sinks{h.trail, h.history})
			if err := h.raise(config(sshDoor())); err != nil {
				t.Fatal(err)
			}
			h.run()
			a := h.client(alice)
			a.knock(7000, 8000, 9000)
			synctest.Wait()
			again(h, a.dial(22), 2)
			h.because(alice, wall.WindowOpen, unknown, "its window is open for another 28s")
		})
	})
}

// Where no sequence opens the door, no source can knock, whatever it has done.
func TestExplainSaysThatAListIsUsedUp(t *testing.T) {
	l := list(t, "7001")
	telling(t, config(l.door), func(h *teller) {
		h.because(bob, wall.NeverKnocked, unknown, "no knock from it was received; knocks are remembered since the daemon started, at "+at(h.status().Since, "1m"))
		h.client(alice).knock(7001)
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
		used := " No knocks open the door now: all sequences of " + l.path + " are used. Add lines to it, then type: knockwall reload"
		if e := h.explain(bob.String())[0]; e.In || !strings.HasSuffix(e.Sentence, "."+used) {
			h.t.Errorf("%+v, want %s", e, used)
		}
		time.Sleep(window)
		synctest.Wait()
		if e := h.explain(alice.String())[0]; e.Reason != wall.WindowOver || !strings.HasSuffix(e.Sentence, "it has to knock again."+used) {
			h.t.Errorf("%+v, want %s", e, used)
		}
	})
}
