package wall_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// sharing returns a configuration that shares these doors, all of them if there are none.
func sharing(c *ruleset.Config, doors ...string) *ruleset.Config {
	c.Share = &ruleset.Share{Group: "prod", Doors: doors}
	return c
}

// hears tells the wall what happened at the host "host2", and returns the errors as text.
func (h *host) hears(changes ...wall.Told) string {
	h.t.Helper()
	errs, err := h.wall.Tell("host2", changes)
	if err != nil {
		h.t.Fatal(err)
	}
	var all []string
	for _, err := range errs {
		all = append(all, fmt.Sprint(err))
	}
	return strings.Join(all, "; ")
}

func openAt(door, source string, left time.Duration) wall.Told {
	return wall.Told{Kind: wall.ChangeOpen, Door: door, Source: source, Left: left}
}

func closedAt(door, source string) wall.Told {
	return wall.Told{Kind: wall.ChangeClosed, Door: door, Source: source}
}

func TestAWindowAtAnotherHostOpensHere(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		a := h.client(alice)
		held := a.dial(22)
		synctest.Wait()
		if got := h.hears(openAt("ssh", "192.0.2.1", 5*time.Second)); got != "<nil>" {
			t.Fatal(got)
		}
		h.expect("the packet that waited", held, accepted)
		if left := h.left("ssh", alice); left != 5*time.Second {
			t.Errorf("it is open for %s", left)
		}
		if w := h.wall.Windows(wall.WindowQuery{}); len(w) != 1 || w[0].Origin != "host2" {
			t.Errorf("windows: %+v", w)
		}
		h.trail.expect(t, []audit.Kind{audit.Opened}, "opened ssh 192.0.2.1: another host has told of it")

		h.hears(openAt("ssh", "192.0.2.1", 2*time.Second))
		if left := h.left("ssh", alice); left != 5*time.Second {
			t.Errorf("a shorter one has left it open for %s", left)
		}
		h.hears(openAt("ssh", "192.0.2.1", 8*time.Second))
		if left := h.left("ssh", alice); left != 8*time.Second {
			t.Errorf("a longer one has left it open for %s", left)
		}
		h.trail.expect(t, []audit.Kind{audit.Refreshed}, "refreshed ssh 192.0.2.1: another host has told of it")
		h.hears(closedAt("ssh", "192.0.2.1"))
		h.expect("it was closed there", a.dial(22), waiting)
		h.trail.expect(t, []audit.Kind{audit.Closed}, "closed ssh 192.0.2.1: another host has told of it")
	})
}

// Another host can open only what this one shares, and for no longer.
func TestAnotherHostIsNotTrusted(t *testing.T) {
	wide := door("web", 443, 7001)
	wide.SourcePrefix.IPv4 = 24
	guarded(t, sharing(config(sshDoor(), wide, door("vpn", 444, 7002)), "ssh", "web"), func(h *host) {
		window := h.status().Doors[0].WindowSeconds
		h.hears(openAt("ssh", "192.0.2.1", 24*time.Hour))
		if left := h.left("ssh", alice); left.Seconds() != window {
			t.Errorf("a window of a day is open for %s", left)
		}
		h.trail.take()
		for _, tt := range []struct {
			told wall.Told
			says string
			kind string
		}{
			{openAt("vpn", "192.0.2.1", time.Second), "do not share this door", "refused vpn 192.0.2.1: the rule files do not share this door"},
			{closedAt("vpn", "192.0.2.1"), "do not share this door", "refused vpn 192.0.2.1: the rule files do not share this door"},
			{openAt("shh", "192.0.2.1", time.Second), "there is no door", `refused: there is no door "shh"; there is "ssh", "web", "vpn"`},
			{openAt("ssh", "0.0.0.0/0", time.Second), "cannot be a source", ""},
			{openAt("web", "192.0.2.1/32", time.Second), "the source of these addresses is 192.0.2.0/24", ""},
			{openAt("web", "192.0.2.1", time.Second), "counts 192.0.2.0/24 as one source, and not 192.0.2.1", "refused web 192.0.2.0/24: the door web counts 192.0.2.0/24 as one source, and not 192.0.2.1"},
			{closedAt("web", "192.0.2.1"), "counts 192.0.2.0/24 as one source", ""},
			{openAt("ssh", "::ffff:192.0.2.1", time.Second), "counts 192.0.2.1 as one source", ""},
			{openAt("ssh", "169.254.1.2", time.Second), "is not shared", "refused ssh 169.254.1.2: a link-local address may be a different host there, so it is not shared"},
			{openAt("ssh", "fe80::1%lo", time.Second), "is not shared", ""},
			{closedAt("ssh", "fe80::1%lo"), "is not shared", ""},
			{openAt("ssh", "192.0.2.1", 0), "as good as over", ""},
			{openAt("ssh", "192.0.2.1", -time.Hour), "as good as over", ""},
			{openAt(strings.Repeat("x", 100), "192.0.2.1", time.Second), "too long", ""},
			{openAt("ssh", strings.Repeat("1", 100), time.Second), "too long", ""},
			{wall.Told{Kind: wall.ChangeOpen, Door: "ssh", Source: "192.0.2.9", Left: time.Second, Person: method.Person{Name: "a\x1b[31m"}}, "printable", ""},
			{wall.Told{Kind: wall.StateBegins}, "a change is open, closed, used or refused", ""},
			{wall.Told{Kind: wall.ChangeUsed, Method: "keys", Person: method.Person{Key: "SHA256:abc"}, Time: time.Now()}, "no door takes such knocks", ""},
		} {
			time.Sleep(2 * audit.SumInterval) // such events are summed up
			h.trail.take()
			if got := h.hears(tt.told); !strings.Contains(got, tt.says) {
				t.Errorf("%+v: %s, want %s", tt.told, got, tt.says)
			}
			told := h.trail.take(audit.Refused)
			if len(told) != 1 || tt.kind != "" && told[0] != tt.kind {
				t.Errorf("%+v: %q, want %q", tt.told, told, tt.kind)
			}
		}
		time.Sleep(2 * audit.SumInterval)
		h.trail.take()
		h.hears(wall.Told{Kind: wall.ToldWrongly, Door: "ssh", Source: "192.0.2.1", Reason: "its stamp is far ahead"})
		h.trail.expect(t, []audit.Kind{audit.Refused}, "refused ssh 192.0.2.1: its stamp is far ahead")
		if w := h.wall.Windows(wall.WindowQuery{}); len(w) > 0 {
			t.Errorf("windows: %+v", w)
		}
		for _, origin := range []string{"", "a b", "@", strings.Repeat("x", 64), "ö"} {
			if _, err := h.wall.Tell(origin, nil); !errors.Is(err, wall.ErrBadOrigin) {
				t.Errorf("the origin %q: %v", origin, err)
			}
		}
	})
}

// Where a door knows persons, a person has to be one of them.
func TestPersonsOfAnotherHostMustBeKnownToADoorThatKnowsPersons(t *testing.T) {
	k := newKeyed(t, "alice@laptop", "eve")
	c := k.config(k.line("", "alice@laptop"), "")
	c.Doors = append(c.Doors, door("web", 443, 7001))
	guarded(t, sharing(c), func(h *host) {
		for _, tt := range []struct {
			door, name string
			opens      bool
		}{{"ssh", "alice@laptop", true}, {"ssh", "eve", false}, {"web", "eve", true}} {
			h.trail.take()
			c := openAt(tt.door, "192.0.2.1", 5*time.Second)
			c.Person = method.Person{Name: tt.name, Key: cryptossh.FingerprintSHA256(k.people[tt.name].PublicKey()), Grant: "key"}
			h.hears(closedAt(tt.door, "192.0.2.1"))
			if got := h.hears(c); (got == "<nil>") != tt.opens {
				t.Errorf("%s at %s: %s", tt.name, tt.door, got)
			}
			var refused []string
			if !tt.opens {
				refused = []string{fmt.Sprintf("refused %s 192.0.2.1: the rule files do not admit this person at this door, or no longer", tt.door)}
			}
			if past := h.trail.past(); !tt.opens && (len(past) == 0 || past[len(past)-1].Failed) {
				t.Error("another host may have other persons, and that is no failure")
			}
			h.trail.expect(t, []audit.Kind{audit.Refused}, refused...)
			time.Sleep(audit.SumInterval + time.Second) // whom the rules do not admit loses the window
			if got := h.wall.Windows(wall.WindowQuery{}); len(got) > 0 {
				t.Errorf("%s at %s: %+v after its time", tt.name, tt.door, got)
			}
		}
	})
}

func TestAKnockThatWasUsedAtAnotherHostOpensNothingHere(t *testing.T) {
	k := newKeyed(t, "alice")
	key := cryptossh.FingerprintSHA256(k.people["alice"].PublicKey())
	guarded(t, sharing(k.config(k.line("", "alice"), "")), func(h *host) {
		datagram := k.knock("alice", nil)
		used := wall.Told{Kind: wall.ChangeUsed, Method: "keys", Person: method.Person{Key: key}, Time: time.Now()}
		if got := h.hears(used); got != "<nil>" {
			t.Fatal(got)
		}
		h.client(alice).sendsKey("a knock that was used elsewhere", datagram, "replayed ssh 192.0.2.1")
		used.Time = time.Now().Add(2 * time.Hour)
		if got := h.hears(used); !strings.Contains(got, "far ahead") {
			t.Error(got)
		}
		time.Sleep(time.Millisecond)
		h.client(alice).sendsKey("a later one", k.knock("alice", nil), "opened ssh 192.0.2.1")
	})
}

// No other host can keep a person out for longer than by a knock that would open a door
// here.
func TestAKnockAtAnotherHostIsNotAheadByMoreThanTheSkew(t *testing.T) {
	k := newKeyed(t, "alice")
	used := wall.Told{Kind: wall.ChangeUsed, Method: "keys", Person: method.Person{Key: cryptossh.FingerprintSHA256(k.people["alice"].PublicKey())}}
	guarded(t, sharing(k.config(k.line("", "alice"), `skew = "1m"`)), func(h *host) {
		used.Time = time.Now().Add(61 * time.Second)
		if got := h.hears(used); !strings.Contains(got, "far ahead") {
			t.Errorf("61 seconds ahead: %s", got)
		}
		used.Time = time.Now().Add(59 * time.Second)
		if got := h.hears(used); got != "<nil>" {
			t.Errorf("59 seconds ahead: %s", got)
		}
		if uses := h.used.All(); len(uses) != 1 {
			t.Errorf("these uses are stored: %q", uses)
		}
	})
}

// Other hosts cannot fill the memory of what was used, and what is too old to be used again
// takes no place in it.
func TestKnocksAtOtherHostsLeaveRoomForThoseHere(t *testing.T) {
	k := newKeyed(t, "alice", "bob")
	person := func(name string) method.Person {
		return method.Person{Name: name, Key: cryptossh.FingerprintSHA256(k.people[name].PublicKey())}
	}
	c := sharing(k.config(k.line("", "alice")+k.line("", "bob"), ""))
	guarded(t, c, func(h *host) {
		if got := h.hears(wall.Told{Kind: wall.ChangeUsed, Method: "keys", Person: person("bob"), Time: time.Now().Add(-wall.Worthless - time.Second)}); got != "<nil>" || h.used.Len() != 0 {
			t.Errorf("an old use: %s, %q", got, h.used.All())
		}
		h.client(alice).sendsKey("alice", k.knock("alice", nil), "opened ssh 192.0.2.1")
		for n := h.used.Len(); n < wall.MostLearned; n++ {
			if err := h.used.Add(fmt.Sprintf("%d keys * SHA256:%d %d", time.Now().Unix(), n, time.Now().UnixMilli())); err != nil {
				t.Fatal(err)
			}
		}
		h.trail.take()
		if got := h.hears(wall.Told{Kind: wall.ChangeUsed, Method: "keys", Person: person("bob"), Time: time.Now()}); !strings.Contains(got, "than can be remembered") {
			t.Errorf("one more key: %s", got)
		}
		h.trail.expectFailed(t, audit.CodeNotRemembered)
		time.Sleep(time.Millisecond)
		if got := h.hears(wall.Told{Kind: wall.ChangeUsed, Method: "keys", Person: person("alice"), Time: time.Now()}); got != "<nil>" {
			t.Errorf("a later use of a key that is known: %s", got)
		}
		h.client(bob).sendsKey("bob, here", k.knock("bob", nil), "opened ssh 192.0.2.2")
	})
}

// A use at another host counts after the file of uses was damaged, too.
func TestAKnockAtAnotherHostCountsAfterDamage(t *testing.T) {
	k := newKeyed(t, "alice")
	c := sharing(k.config(k.line("", "alice"), ""))
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.used = &notebook{damaged: time.Now()}
		h.begin(c)
		time.Sleep(10 * time.Minute)
		datagram := k.knock("alice", nil)
		used := wall.Told{Kind: wall.ChangeUsed, Method: "keys", Person: method.Person{Key: cryptossh.FingerprintSHA256(k.people["alice"].PublicKey())}, Time: time.Now()}
		if got := h.hears(used); got != "<nil>" {
			t.Fatal(got)
		}
		h.client(alice).sendsKey("a knock that was used elsewhere", datagram, "replayed ssh 192.0.2.1")
	})
}

// What another host has told, and cannot be done, is in the audit trail.
func TestWhatIsToldAndFailsIsAudited(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		h.hears(openAt("ssh", "192.0.2.1", 5*time.Second))
		h.trail.take()
		h.failing("CloseWindow", errInjected)
		if got := h.hears(closedAt("ssh", "192.0.2.1")); got != errInjected.Error() {
			t.Errorf("closing: %s", got)
		}
		h.trail.expect(t, []audit.Kind{audit.Closed}, "closed ssh 192.0.2.1: "+errInjected.Error())
	})
}

// The time that a window waits here to be opened is no time that it is open for longer than
// elsewhere.
func TestAWindowAtAnotherHostGoesOnEndingWhileItWaits(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		h.wall.Queue("ssh", packet.Source{Prefix: netip.PrefixFrom(bob, 32)}, 5*time.Second)
		h.once("OpenWindows", func() { time.Sleep(time.Second) })
		if got := h.hears(openAt("ssh", "192.0.2.1", 5*time.Second)); got != "<nil>" {
			t.Fatal(got)
		}
		if left := h.left("ssh", alice); left != 4*time.Second {
			t.Errorf("it is open for %s", left)
		}
	})
}

// A use is in the state or comes after it, and says who has used what: other hosts need that
// to know whether it concerns them.
func TestTheStateHasAllUsesAndTheirPersons(t *testing.T) {
	k := newKeyed(t, "alice")
	c := sharing(k.config(k.line("", "alice"), ""))
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.used = book
		h.begin(c)
		who := func(f *wall.Follower) (names []string) {
			changes, err := f.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range changes {
				if c.Kind == wall.ChangeUsed {
					names = append(names, c.Person+" "+c.Grant)
				}
			}
			slices.Sort(names)
			return names
		}
		h.client(alice).sendsKey("alice", k.knock("alice", nil), "opened ssh 192.0.2.1")
		synctest.Wait()
		want := []string{"alice key"}
		wantChanges(t, "the uses of the state", who(h.wall.Follow("")), want...)
		h.stop()
		<-h.ended
		h.begin(c)
		book.reading = func() { // when the place of the state was taken
			book.reading = nil
			if _, err := h.wall.Close("ssh", "192.0.2.1", false); err != nil {
				t.Error(err)
			}
		}
		f := h.wall.Follow("")
		wantChanges(t, "the uses after a restart", who(f), want...)
		got, _ := following(t, f)
		wantChanges(t, "what happens while the uses are read", got, "closed ssh 192.0.2.1")
	})
}

// following collects the changes that a follower gets, until there is nothing more.
func following(t *testing.T, f *wall.Follower) (all []string, cursor string) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		changes, err := f.Next(ctx)
		cancel()
		if err != nil {
			return all, cursor
		}
		for _, c := range changes {
			text := string(c.Kind)
			if c.Door != "" {
				text += " " + c.Door + " " + c.Source.String()
			}
			if c.Origin != "" {
				text += " by " + c.Origin
			}
			if c.Kind == wall.ChangeOpen {
				text += fmt.Sprintf(" for %.0fs", c.LeftSeconds)
			}
			all = append(all, text)
			if c.Cursor != "" {
				cursor = c.Cursor
			}
		}
	}
}

func wantChanges(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestAFollowerSeesEachChangeOfAWindow(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		h.client(bob).knock(7000, 8000, 9000)
		synctest.Wait()
		f := h.wall.Follow("")
		got, cursor := following(t, f)
		window := fmt.Sprintf("for %.0fs", h.status().Doors[0].WindowSeconds)
		wantChanges(t, "the state", got, "state", "open ssh 192.0.2.2 "+window, "current")

		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.hears(closedAt("ssh", "192.0.2.2"), openAt("ssh", "192.0.2.3", 3*time.Second))
		synctest.Wait()
		later := []string{"open ssh 192.0.2.1 " + window, "closed ssh 192.0.2.2 by host2", "open ssh 192.0.2.3 by host2 for 3s"}
		got, _ = following(t, f)
		wantChanges(t, "later", got, later...)
		got, _ = following(t, h.wall.Follow(cursor))
		wantChanges(t, "after the cursor", got, later...)
		got, _ = following(t, h.wall.Follow("x"+cursor))
		slices.Sort(got[2:4]) // the windows of a state are in no order
		wantChanges(t, "with the cursor of another daemon", got,
			"state", "closed ssh 192.0.2.2 by host2", "open ssh 192.0.2.1 "+window, "open ssh 192.0.2.3 by host2 for 3s", "current")

		time.Sleep(4 * time.Second)
		got, cursor = following(t, f)
		wantChanges(t, "the end of a window", got, "expired ssh 192.0.2.3")
		if err := h.wall.Apply(sharing(config(sshDoor()))); err != nil {
			t.Fatal(err)
		}
		got, _ = following(t, f)
		if len(got) != 4 || got[0] != "state" {
			t.Errorf("after a reload: %q", got)
		}
		got, _ = following(t, h.wall.Follow(cursor))
		if len(got) != 4 || got[0] != "state" {
			t.Errorf("with a cursor from before the reload: %q", got)
		}
	})
}

// The state has the closing of a window that was opened again: others may not know of it.
func TestTheStateHasAClosingBeforeTheWindow(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		for range 2 {
			if _, err := h.wall.Open("ssh", "192.0.2.1", 0); err != nil {
				t.Fatal(err)
			}
			if _, err := h.wall.Close("ssh", "192.0.2.1", false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if _, err := h.wall.Open("ssh", "192.0.2.1", 0); err != nil {
			t.Fatal(err)
		}
		got, _ := following(t, h.wall.Follow(""))
		window := fmt.Sprintf("for %.0fs", h.status().Doors[0].WindowSeconds)
		wantChanges(t, "the state", got, "state", "closed ssh 192.0.2.1", "open ssh 192.0.2.1 "+window, "current")
	})
}

// A follower that reads too slowly is told, and gets the state. It misses nothing.
func TestAFollowerThatIsTooSlowGetsTheState(t *testing.T) {
	guarded(t, sharing(config(sshDoor())), func(h *host) {
		f := h.wall.Follow("")
		_, cursor := following(t, f)
		for range wall.MaxChanges/2 + 1 {
			h.hears(openAt("ssh", "192.0.2.1", 3*time.Second), closedAt("ssh", "192.0.2.1"))
		}
		h.hears(openAt("ssh", "192.0.2.2", 3*time.Second))
		for what, f := range map[string]*wall.Follower{"it reads on": f, "it comes back": h.wall.Follow(cursor)} {
			got, _ := following(t, f)
			wantChanges(t, what, got, "state", "closed ssh 192.0.2.1 by host2", "open ssh 192.0.2.2 by host2 for 3s", "current")
		}
	})
}

// Where a window came from outlasts the daemon.
func TestAnOriginOutlastsTheDaemon(t *testing.T) {
	for _, o := range []method.Opener{
		{}, {Origin: "host2"}, {Origin: "host2", Person: method.Person{Name: "alice", Key: "SHA256:abc", Grant: "key"}},
		{Person: method.Person{Name: "@bob", Grant: "fwknop"}},
	} {
		if back := method.ParseOpener(o.Text()); back != o {
			t.Errorf("%+v became %+v by way of %q", o, back, o.Text())
		}
	}
}
