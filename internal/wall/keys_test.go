package wall_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

var keyPort = packet.Port{Number: 62201, Protocol: packet.UDP}

// keyed is a host whose doors open to people with keys.
type keyed struct {
	t        *testing.T
	identity spa.Identity
	folder   string
	people   map[string]cryptossh.Signer
}

func newKeyed(t *testing.T, names ...string) *keyed {
	t.Helper()
	identity, err := spa.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	k := &keyed{t, identity, t.TempDir(), map[string]cryptossh.Signer{}}
	k.write("identity", string(identity.Text()))
	for _, name := range names {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if k.people[name], err = cryptossh.NewSignerFromSigner(private); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k *keyed) write(name, text string) string {
	k.t.Helper()
	path := filepath.Join(k.folder, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return path
}

// line returns the line of a person, with options.
func (k *keyed) line(options, name string) string {
	return strings.TrimSpace(options+" "+strings.TrimSpace(string(cryptossh.MarshalAuthorizedKey(k.people[name].PublicKey())))+" "+name) + "\n"
}

// config returns the configuration with these lines of people, and more text in the door.
func (k *keyed) config(lines, more string) *ruleset.Config {
	k.t.Helper()
	people := k.write("people", lines)
	rules := k.write("rules.hcl", fmt.Sprintf(`
wall { identity = %q }
door "ssh" {
  ports  = [22]
  window = "30s"
  keys {
    authorized = [%q]
    %s
  }
}`, filepath.Join(k.folder, "identity"), people, more))
	l := ruleset.Load(rules)
	if l.Config == nil {
		k.t.Fatal(l.Diagnostics)
	}
	c := config(l.Config.Doors...)
	return c
}

// knock returns the datagram of a person.
func (k *keyed) knock(name string, change func(*spa.Knock)) []byte {
	k.t.Helper()
	knock := spa.Knock{What: spa.Open, Time: time.Now(), Door: spa.HashDoor("ssh")}
	if change != nil {
		change(&knock)
	}
	signer := k.people[name]
	b, err := spa.Seal(k.identity.Public(), knock, signer.PublicKey(), func(data []byte) (*cryptossh.Signature, error) { return signer.Sign(rand.Reader, data) })
	if err != nil {
		k.t.Fatal(err)
	}
	return b
}

// sendsKey sends a datagram to the port of keys, and checks the events.
func (c *client) sendsKey(what string, data []byte, want ...string) {
	c.t.Helper()
	synctest.Wait()
	c.host.trail.take()
	c.datagram(keyPort, data)
	synctest.Wait()
	if got := c.host.trail.take(fates...); !slices.Equal(got, want) {
		c.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestAKeyOpensAndClosesForItsPerson(t *testing.T) {
	k := newKeyed(t, "alice@laptop")
	guarded(t, k.config(k.line("", "alice@laptop"), ""), func(h *host) {
		a := h.client(alice)
		datagram := k.knock("alice@laptop", nil)
		a.sendsKey("a knock", datagram, "opened ssh 192.0.2.1")
		h.expect("alice has a window", a.dial(22), accepted)
		if w := h.wall.Windows(wall.WindowQuery{}); len(w) != 1 || w[0].Person != "alice@laptop" || w[0].Key != cryptossh.FingerprintSHA256(k.people["alice@laptop"].PublicKey()) {
			t.Errorf("windows: %+v", w)
		}
		a.sendsKey("the same again", datagram, "replayed ssh 192.0.2.1")
		h.client(bob).sendsKey("the same from elsewhere", datagram, "replayed ssh 192.0.2.2")
		time.Sleep(time.Millisecond)
		a.sendsKey("another", k.knock("alice@laptop", nil), "refreshed ssh 192.0.2.1")
		time.Sleep(time.Millisecond)
		shut := k.knock("alice@laptop", func(n *spa.Knock) { n.What = spa.Close })
		a.sendsKey("a close", shut, "closed ssh 192.0.2.1: it has knocked to close it")
		h.expect("alice has none", a.dial(22), waiting)
		time.Sleep(audit.SumInterval)
		a.sendsKey("the close again", shut, "replayed ssh 192.0.2.1")
		time.Sleep(audit.SumInterval)
		a.sendsKey("an earlier one", k.knock("alice@laptop", func(n *spa.Knock) { n.Time = n.Time.Add(-time.Minute) }), "replayed ssh 192.0.2.1")
	})
}

// The person of an event is in each event of the person's window.
func TestEventsNameThePerson(t *testing.T) {
	k := newKeyed(t, "alice")
	guarded(t, k.config(k.line("", "alice"), ""), func(h *host) {
		a := h.client(alice)
		a.datagram(keyPort, k.knock("alice", nil))
		synctest.Wait()
		a.dial(22)
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		want := map[audit.Kind]bool{audit.Knock: true, audit.Opened: true, audit.Accepted: true, audit.Expired: true}
		for _, e := range h.trail.past() {
			if want[e.Kind] && (e.Person != "alice" || !strings.HasPrefix(e.Key, "SHA256:")) {
				t.Errorf("%s", e)
			}
			delete(want, e.Kind)
		}
		if len(want) > 0 {
			t.Errorf("not seen: %v", want)
		}
	})
}

func TestAnAuthenticDatagramThatIsRefusedSaysWhy(t *testing.T) {
	k := newKeyed(t, "alice", "bob", "carol", "dave", "eve")
	lines := k.line("", "alice") + k.line(`from="198.51.100.0/24"`, "bob") + k.line(`doors="vpn"`, "carol") + k.line(`expiry-time="19990101Z"`, "dave")
	guarded(t, k.config(lines, ""), func(h *host) {
		a := h.client(alice)
		file := filepath.Join(k.folder, "people")
		for _, tt := range []struct {
			who    string
			change func(*spa.Knock)
			want   string
		}{
			{"alice", func(n *spa.Knock) { n.Time = n.Time.Add(-10 * time.Minute) }, "the client's clock is 10m behind this host's, and skew allows 2m"},
			{"alice", func(n *spa.Knock) { n.Time = n.Time.Add(3 * time.Minute) }, "the client's clock is 3m ahead of this host's, and skew allows 2m"},
			{"alice", func(n *spa.Knock) { n.Source = bob }, "the datagram is for 192.0.2.2, and comes from 192.0.2.1"},
			{"alice", func(n *spa.Knock) { n.Door = spa.HashDoor("web") }, "no door of this host has the name that the client's hosts file says"},
			{"bob", nil, "from= in line 2 of " + file + " does not allow 192.0.2.1"},
			{"carol", nil, "doors= in line 3 of " + file + " does not name this door"},
			{"dave", nil, "line 4 of " + file + " expired at 1999-01-01 00:00:00"},
		} {
			time.Sleep(audit.SumInterval)
			a.sendsKey(tt.who, k.knock(tt.who, tt.change), "reset ssh 192.0.2.1: "+tt.want)
		}
		time.Sleep(audit.SumInterval)
		a.sendsKey("somebody unknown", k.knock("eve", nil))
		garbage := make([]byte, spa.ShortSize)
		if _, err := rand.Read(garbage); err != nil {
			t.Fatal(err)
		}
		a.sendsKey("garbage", garbage)
		if n := len(h.stands()); n != 0 && len(h.wall.Windows(wall.WindowQuery{})) != 0 {
			t.Errorf("windows: %v", h.wall.Windows(wall.WindowQuery{}))
		}
	})
}

func TestTheWindowOfAKeyIsAsLongAsAskedAndAllowed(t *testing.T) {
	k := newKeyed(t, "alice", "bob")
	guarded(t, k.config(k.line("", "alice")+k.line(`window="10m"`, "bob"), ""), func(h *host) {
		a := h.client(alice)
		for _, tt := range []struct {
			who         string
			asked, want time.Duration
		}{
			{"alice", 0, 30 * time.Second}, {"alice", 5 * time.Second, 5 * time.Second}, {"alice", time.Hour, 30 * time.Second},
			{"bob", 0, 10 * time.Minute}, {"bob", time.Minute, time.Minute}, {"bob", time.Hour, 10 * time.Minute},
		} {
			a.datagram(keyPort, k.knock(tt.who, func(n *spa.Knock) { n.Window = tt.asked }))
			synctest.Wait()
			if got := h.left("ssh", alice); got != tt.want {
				t.Errorf("%s asked for %s: the window is open for %s, want %s", tt.who, tt.asked, got, tt.want)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestASignedSourceIsNeeded(t *testing.T) {
	k := newKeyed(t, "alice")
	guarded(t, k.config(k.line("", "alice"), `source = "signed"`), func(h *host) {
		a := h.client(alice)
		a.sendsKey("without an address", k.knock("alice", nil), `reset ssh 192.0.2.1: the datagram names no address, and the door has source = "signed"`)
		a.sendsKey("with its address", k.knock("alice", func(n *spa.Knock) { n.Source = alice }), "opened ssh 192.0.2.1")
	})
}

// A reload without the line of a person closes the windows of that person, and of nobody
// else.
func TestAPersonWhoseLineIsDeletedIsOut(t *testing.T) {
	k := newKeyed(t, "alice", "bob")
	guarded(t, k.config(k.line("", "alice")+k.line("", "bob"), ""), func(h *host) {
		h.client(alice).sendsKey("alice", k.knock("alice", nil), "opened ssh 192.0.2.1")
		h.client(bob).sendsKey("bob", k.knock("bob", nil), "opened ssh 192.0.2.2")
		if err := h.wall.Apply(h.knows(k.config(k.line("", "bob"), ""))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := h.trail.take(audit.Closed), []string{"closed ssh 192.0.2.1: the rules no longer admit the person who opened it"}; !slices.Equal(got, want) {
			t.Errorf("events: %q, want %q", got, want)
		}
		h.expect("alice is out", h.client(alice).dial(22), waiting)
		h.expect("bob is in", h.client(bob).dial(22), accepted)
	})
}

// A reload deletes the line of a person whose datagram is being verified, at any moment of the
// reload. In the end the person is out.
func TestAPersonWhoseLineIsDeletedDuringAVerificationIsOut(t *testing.T) {
	for _, moment := range []string{"Standing", "SeedConntrack", "Install", "OpenWindows"} {
		k := newKeyed(t, "alice", "bob")
		guarded(t, k.config(k.line("", "alice")+k.line("", "bob"), ""), func(h *host) {
			a := h.client(alice)
			without := h.knows(k.config(k.line("", "bob"), ""))
			reload := func() {
				if err := h.wall.Apply(without); err != nil {
					t.Errorf("%s: %v", moment, err)
				}
			}
			done := make(chan struct{})
			h.once(moment, func() {
				if moment == "OpenWindows" { // her window is about to open, and the reload waits for that
					go func() { reload(); close(done) }()
					return
				}
				a.datagram(keyPort, k.knock("alice", nil))
				a.dial(22)
			})
			if moment == "OpenWindows" {
				a.datagram(keyPort, k.knock("alice", nil))
				<-done
			} else {
				reload()
			}
			synctest.Wait()
			if left := h.left("ssh", alice); left != 0 || len(h.wall.Windows(wall.WindowQuery{})) != 0 {
				t.Errorf("%s: her window is open for %s: %+v", moment, left, h.wall.Windows(wall.WindowQuery{}))
			}
			h.expect(moment+": alice is out", a.dial(22), waiting)
			h.client(bob).sendsKey(moment+": bob", k.knock("bob", nil), "opened ssh 192.0.2.2")
		})
	}
}

// The end of a trial closes the windows of those whom only the rules on trial admitted.
func TestAPersonOfATrialThatEndsIsOut(t *testing.T) {
	k := newKeyed(t, "alice", "bob")
	guarded(t, k.config(k.line("", "alice"), ""), func(h *host) {
		if err := h.try(k.config(k.line("", "alice")+k.line("", "bob"), ""), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		h.client(alice).sendsKey("alice", k.knock("alice", nil), "opened ssh 192.0.2.1")
		h.client(bob).sendsKey("bob", k.knock("bob", nil), "opened ssh 192.0.2.2")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got, want := h.trail.take(audit.Closed), []string{"closed ssh 192.0.2.2: the rules no longer admit the person who opened it"}; !slices.Equal(got, want) {
			t.Errorf("events: %q, want %q", got, want)
		}
		h.expect("bob is out", h.client(bob).dial(22), waiting)
		h.expect("alice is in", h.client(alice).dial(22), accepted)
	})
}

// SYN and datagram come back to back: the packet is held until the datagram is verified.
func TestASYNRightAfterTheDatagramIsAdmitted(t *testing.T) {
	k := newKeyed(t, "alice")
	guarded(t, k.config(k.line("", "alice"), ""), func(h *host) {
		a := h.client(alice)
		a.datagram(keyPort, k.knock("alice", nil))
		h.expect("the first SYN", a.dial(22), accepted)
	})
}

// A source that sends very many datagrams does not keep others out.
func TestASourceThatFloodsMissesOnlyItsOwn(t *testing.T) {
	k := newKeyed(t, "alice", "bob")
	guarded(t, k.config(k.line("", "alice")+k.line("", "bob"), ""), func(h *host) {
		flood := k.knock("bob", func(n *spa.Knock) { n.Door = spa.HashDoor("x") })
		b := h.client(bob)
		for range 5000 {
			b.datagram(keyPort, flood)
		}
		h.client(alice).sendsKey("alice", k.knock("alice", nil), "opened ssh 192.0.2.1")
	})
}

// The memory of knocks outlasts the daemon, and holds one entry a key.
func TestAReplayIsKnownAfterARestart(t *testing.T) {
	k := newKeyed(t, "alice")
	guarded(t, k.config(k.line("", "alice"), ""), func(h *host) {
		var last []byte
		for range 3 {
			last = k.knock("alice", nil)
			h.client(alice).datagram(keyPort, last)
			synctest.Wait()
			time.Sleep(time.Second)
		}
		if n := h.used.Len(); n != 1 {
			t.Errorf("%d entries", n)
		}
		next := h.again(k.config(k.line("", "alice"), ""))
		next.client(alice).sendsKey("the last one", last, "replayed ssh 192.0.2.1")
		next.client(alice).sendsKey("a later one", k.knock("alice", nil), "refreshed ssh 192.0.2.1")
	})
}

// While the memory is away nothing opens. When it is back, what it has counts.
func TestAReplayIsKnownWhenTheMemoryIsBack(t *testing.T) {
	k := newKeyed(t, "alice")
	guarded(t, k.config(k.line("", "alice"), ""), func(h *host) {
		memory := &notebook{}
		h.used = memory
		h = h.again(k.config(k.line("", "alice"), "")) // with that memory
		a := h.client(alice)
		old := k.knock("alice", func(n *spa.Knock) { n.Time = n.Time.Add(-time.Second) })
		a.sendsKey("a knock", k.knock("alice", nil), "opened ssh 192.0.2.1")
		memory.setAway(true)
		next := h.again(k.config(k.line("", "alice"), ""))
		next.client(alice).sendsKey("while it is away", k.knock("alice", func(n *spa.Knock) { n.Time = n.Time.Add(time.Second) }), "refused ssh 192.0.2.1: it is away")
		memory.setAway(false)
		time.Sleep(audit.SumInterval)
		next.client(alice).sendsKey("an earlier one", old, "replayed ssh 192.0.2.1")
		next.client(alice).sendsKey("a later one", k.knock("alice", nil), "refreshed ssh 192.0.2.1")
	})
}

// Nothing is remembered of a knock with a key that nobody has listed, as anybody can send one.
// So explain does not claim that none came.
func TestExplainNamesKnocksThatAreIgnored(t *testing.T) {
	k := newKeyed(t, "alice", "mallory")
	telling(t, k.config(k.line("", "alice"), ""), func(h *teller) {
		h.client(bob).sendsKey("a key that is not listed", k.knock("mallory", nil))
		if e := h.explain(bob.String())[0]; e.In || e.Reason != wall.NeverKnocked ||
			!strings.Contains(e.Sentence, "; knocks that are sealed to another identity, or signed with a key that the authorized files do not have, are not remembered") {
			t.Errorf("%+v", e)
		}
	})
}
