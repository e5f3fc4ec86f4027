package wall_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

var (
	openKey, shutKey = []byte("hipjazz"), []byte("superawesome")
	otpPort          = packet.Port{Number: 2000, Protocol: packet.UDP}
)

const notPassword = "no one-time password of this minute for this address"

// passworded returns a door that one-time passwords open and close.
func passworded(d ruleset.Door) ruleset.Door {
	d.Methods = append(d.Methods, &passwords.OTP{Port: otpPort, Open: secret.New(openKey), Close: secret.New(shutKey)})
	return d
}

// vpnDoor returns a door that only passwords open.
func vpnDoor() ruleset.Door {
	return passworded(door("vpn", 22))
}

// sends sends a datagram to the port for passwords, and checks the events.
func (c *client) sends(what string, data []byte, want ...string) {
	c.t.Helper()
	synctest.Wait()
	c.host.trail.take()
	c.datagram(otpPort, data)
	synctest.Wait()
	if got := c.host.trail.take(fates...); !slices.Equal(got, want) {
		c.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// password returns a password of the client for now.
func (c *client) password(key []byte) []byte { return otp.Datagram(key, c.addr, time.Now()) }

func TestAOneTimePasswordOpensOnceAndAnotherCloses(t *testing.T) {
	guarded(t, config(vpnDoor()), func(h *host) {
		a := h.client(alice)
		open := a.password(openKey)
		a.sends("to open", open, "opened vpn 192.0.2.1")
		h.expect("alice has a window", a.dial(22), accepted)
		if got := h.left("vpn", alice); got != window {
			h.t.Errorf("the window is open for %s", got)
		}
		a.sends("once more", open, "replayed vpn 192.0.2.1")
		a.sends("to close", a.password(shutKey), "closed vpn 192.0.2.1: it has knocked to close it")
		h.expect("alice has none", a.dial(22), waiting)
		time.Sleep(audit.SumInterval) // so that no events are summed up
		a.sends("to open, once more", open, "replayed vpn 192.0.2.1")
		time.Sleep(time.Minute)
		a.sends("to close what is not open", a.password(shutKey))
		a.sends("to open in the next minute", a.password(openKey), "opened vpn 192.0.2.1")
		if d := h.status().Doors[0].Counters; d.Knocks != 6 || d.Replayed != 2 || d.Opened != 2 || d.Closed != 1 || d.Resets != 0 {
			h.t.Errorf("counters: %+v", d)
		}
	})
}

func TestAPasswordThatWasUsedToCloseIsUsed(t *testing.T) {
	guarded(t, config(vpnDoor()), func(h *host) {
		a := h.client(alice)
		shut := a.password(shutKey)
		a.sends("to open", a.password(openKey), "opened vpn 192.0.2.1")
		a.sends("to close", shut, "closed vpn 192.0.2.1: it has knocked to close it")
		time.Sleep(30 * time.Second)
		h.wall.ApplyAt(time.Now())
		a.sends("to close, overheard", shut, "replayed vpn 192.0.2.1")
	})
}

func TestWhatIsNoPasswordOfThisMinuteForThisAddressOpensNothing(t *testing.T) {
	guarded(t, config(vpnDoor()), func(h *host) {
		now := time.Now()
		garbage := slices.Repeat([]byte("zZ"), otp.Size)[:otp.Size]
		capitals := bytes.ToUpper(otp.Datagram(openKey, alice, now))
		for what, data := range map[string][]byte{
			"another address": otp.Datagram(openKey, bob, now),
			"the last minute": otp.Datagram(openKey, alice, now.Add(-time.Minute)),
			"the next minute": otp.Datagram(openKey, alice, now.Add(time.Minute)),
			"another secret":  otp.Datagram([]byte("hipjaz"), alice, now),
			"no digits":       garbage,
			"capital digits":  capitals,
		} {
			h.client(alice).sends(what, data, "reset vpn 192.0.2.1: "+notPassword)
			time.Sleep(audit.SumInterval)
		}
		if d := h.status().Doors[0].Counters; d.Resets != 6 || d.Opened != 0 || d.Knocks != 0 {
			h.t.Errorf("counters: %+v", d)
		}
	})
}

// A clock may be off by the skew. A password of each valid minute can be used once.
func TestPasswordsOfTheMinutesThatCanBeNowAreGoodOnceEach(t *testing.T) {
	d := vpnDoor()
	methodOf[*passwords.OTP](d).Skew = time.Minute
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		for i, off := range []time.Duration{-time.Minute, 0, time.Minute} {
			want := "opened vpn 192.0.2.1"
			if i > 0 {
				want = "refreshed vpn 192.0.2.1"
			}
			data := otp.Datagram(openKey, alice, time.Now().Add(off))
			a.sends(off.String(), data, want)
			a.sends(off.String()+", again", data, "replayed vpn 192.0.2.1")
			time.Sleep(audit.SumInterval)
		}
		a.sends("too far off", otp.Datagram(openKey, alice, time.Now().Add(-2*time.Minute-audit.SumInterval)), "reset vpn 192.0.2.1: "+notPassword)
	})
}

// The last byte of a password is not significant, so changing it makes no other password.
func TestAPasswordWithAnotherLastByteIsTheSame(t *testing.T) {
	guarded(t, config(vpnDoor()), func(h *host) {
		a := h.client(alice)
		data := a.password(openKey)
		a.sends("as it is", data, "opened vpn 192.0.2.1")
		data = slices.Clone(data)
		data[otp.Size-1] = 0
		a.sends("with a NUL", data, "replayed vpn 192.0.2.1")
	})
}

func TestAPasswordIsUsedForTheNextDaemonToo(t *testing.T) {
	c := config(vpnDoor())
	guarded(t, c, func(h *host) {
		data := h.client(alice).password(openKey)
		h.client(alice).sends("to open", data, "opened vpn 192.0.2.1")
		next := h.again(c)
		next.client(alice).sends("once more", data, "replayed vpn 192.0.2.1")
	})
}

// Two doors may share a secret, of which the rule files warn. A password used at one is
// not used at the other.
func TestAPasswordIsUsedAtItsDoor(t *testing.T) {
	other := vpnDoor()
	other.Name = "other"
	guarded(t, config(vpnDoor(), other), func(h *host) {
		a := h.client(alice)
		data := a.password(openKey)
		a.sends("to open both", data, "opened vpn 192.0.2.1", "opened other 192.0.2.1")
		a.sends("once more", data, "replayed vpn 192.0.2.1", "replayed other 192.0.2.1")
	})
}

func TestAPasswordOpensNothingWhereItCannotBeRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.used = book
		h.begin(config(vpnDoor()))
		a := h.client(alice)
		data := a.password(openKey)
		book.fail(errInjected)
		j := a.dial(22)
		a.sends("to open", data, "refused vpn 192.0.2.1: the kernel says no")
		time.Sleep(hold)
		h.expect("alice", j, refused)
		book.fail(nil)
		a.sends("when it can be", data, "opened vpn 192.0.2.1")
	})
}

// A password that may have been used before the damage opens nothing. This ends by
// itself.
func TestAfterDamagePasswordsOpenNothingUntilNoneOfBeforeIsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.used = &notebook{damaged: time.Now().Add(30 * time.Second)}
		d := vpnDoor()
		methodOf[*passwords.OTP](d).Skew = time.Minute
		h.begin(config(d))
		a := h.client(alice)
		toStep(time.Minute, 40*time.Second)
		for i, want := range []string{ // by minutes, of which the first and the second could be used before
			"refused vpn 192.0.2.1: " + mayBeUsed, "refused vpn 192.0.2.1: " + mayBeUsed,
			"opened vpn 192.0.2.1", "opened vpn 192.0.2.1",
		} {
			a.sends(fmt.Sprintf("minute %d", i), otp.Datagram(openKey, alice, time.Now().Add(-time.Minute)), want)
			toStep(time.Minute, 40*time.Second)
		}
	})
}

const mayBeUsed = "it may have been used before: the file of used passwords and sequences was damaged. Later ones open the door again"

func TestAPasswordAndASequenceOpenOneDoor(t *testing.T) {
	guarded(t, config(passworded(sshDoor())), func(h *host) {
		a := h.client(alice)
		a.became("the sequence", ports(7000, 8000, 9000), "opened ssh 192.0.2.1 3/3")
		a.sends("the password", a.password(openKey), "refreshed ssh 192.0.2.1")
		a.sends("the other password", a.password(shutKey), "closed ssh 192.0.2.1: it has knocked to close it")
		b := h.client(bob)
		b.knock(7000, 8000)
		b.sends("in the midst of a sequence, garbage", make([]byte, otp.Size), "reset ssh 192.0.2.2: "+notPassword)
		b.became("the rest of it", ports(9000), "opened ssh 192.0.2.2 3/3")
	})
}

func TestADoorWithoutASecondSecretIsNotClosedByPasswords(t *testing.T) {
	d := vpnDoor()
	methodOf[*passwords.OTP](d).Close = secret.Secret{}
	guarded(t, config(d), func(h *host) {
		a := h.client(alice)
		a.sends("to open", a.password(openKey), "opened vpn 192.0.2.1")
		a.sends("to close", a.password(shutKey), "reset vpn 192.0.2.1: "+notPassword)
		// An empty key is no secret.
		a.sends("to close, with no secret", a.password(nil))
		if d := h.status().Doors[0].Counters; d.Closed != 0 || d.Resets != 2 {
			h.t.Errorf("counters: %+v", d)
		}
	})
}

func TestAPasswordAndASYNBackToBackAreAdmitted(t *testing.T) {
	guarded(t, config(vpnDoor()), func(h *host) {
		a := h.client(alice)
		theirs, j := h.client(bob).dial(22), a.dial(22)
		h.expect("the password is missing", j, waiting)
		a.datagram(otpPort, a.password(openKey))
		h.expect("the password has come", j, accepted)
		if n := h.rounds(j); n != 1 {
			h.t.Errorf("the packet went through the rules %d times, want 1", n)
		}
		h.expect("bob has sent none", theirs, waiting)
	})
}

func TestNoPacketIsRefusedWhileAPasswordOpensTheDoor(t *testing.T) {
	guarded(t, config(limited(vpnDoor(), 9)), func(h *host) {
		h.intercepted("OpenWindows", func() { time.Sleep(time.Second) }) // as somebody else changes the rules
		a := h.client(alice)
		j := a.dial(22)
		a.datagram(otpPort, a.password(openKey))
		time.Sleep(time.Second - 1)
		h.expect("the window is not open yet", j, waiting)
		time.Sleep(time.Nanosecond)
		h.expect("the window is open", j, accepted)
		theirs := h.client(bob).dial(22)
		time.Sleep(hold)
		h.expect("no window is being opened any more", theirs, refused)
	})
}

// A password is for the address that sent it. The window is for the whole source.
func TestAPasswordOpensForTheSourceThatItsAddressIsPartOf(t *testing.T) {
	d := vpnDoor()
	d.SourcePrefix = packet.SourcePrefix{IPv4: 24, IPv6: 64}
	guarded(t, config(d), func(h *host) {
		for _, test := range []struct{ sender, neighbour, source string }{
			{"192.0.2.1", "192.0.2.77", "192.0.2.0/24"},
			{"2001:db8::1", "2001:db8::2", "2001:db8::/64"},
		} {
			sender, neighbour := h.client(netip.MustParseAddr(test.sender)), h.client(netip.MustParseAddr(test.neighbour))
			data := sender.password(openKey)
			neighbour.sends("from another address", data, "reset vpn "+test.source+": "+notPassword)
			sender.sends("from its own", data, "opened vpn "+test.source)
			h.expect(test.neighbour, neighbour.dial(22), accepted)
			neighbour.sends("the neighbour's own", neighbour.password(openKey), "refreshed vpn "+test.source)
		}
	})
}

// Messages that the old rules have logged are handled by the new policy, which may have
// no secret.
func TestAPasswordThatIsUnreadWhenAReloadTakesThemAwayOpensNothing(t *testing.T) {
	guarded(t, config(passworded(sshDoor())), func(h *host) {
		a := h.client(alice)
		log := h.log()
		log.hold()
		a.datagram(otpPort, a.password(openKey))
		if err := h.raise(config(sshDoor())); err != nil {
			h.t.Fatal(err)
		}
		h.trail.take()
		log.resume()
		synctest.Wait()
		h.trail.expect(h.t, nil)
		a.became("the sequence", ports(7000, 8000, 9000), "opened ssh 192.0.2.1 3/3")
	})
}

// usedAt returns the entry for a used password of a minute.
func usedAt(minute time.Time, n int) string { return fmt.Sprintf("%d otp vpn %064x", minute.Unix(), n) }

func TestOldPasswordsAreForgottenForNewOnesAndThoseThatCanBeGoodAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.used = book
		time.Sleep(24 * time.Hour)
		now := time.Now()
		good, over := now.Add(-wall.Worthless+time.Minute), now.Add(-wall.Worthless)
		for n := range wall.KeptUsed {
			// Every other entry can still be valid. They are not in the order of time.
			if err := book.Add(usedAt([]time.Time{good, over}[n%2], n)); err != nil {
				t.Fatal(err)
			}
		}
		h.begin(config(vpnDoor()))
		h.client(alice).sends("to open", h.client(alice).password(openKey), "opened vpn 192.0.2.1")
		if got := book.Len(); got != wall.KeptUsed {
			t.Errorf("%d are remembered, want %d", got, wall.KeptUsed)
		}
		for n := range wall.KeptUsed {
			want := n != 1 // the oldest expired entry
			if got := book.Has(usedAt([]time.Time{good, over}[n%2], n)); got != want {
				t.Fatalf("number %d is remembered: %t", n, got)
			}
		}
	})
}

func TestWhatWasUsedBeforeTheClockWasPutBackIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.used = book
		for n := range wall.KeptUsed {
			if err := book.Add(usedAt(time.Now().Add(time.Hour), n)); err != nil {
				t.Fatal(err)
			}
		}
		h.begin(config(vpnDoor()))
		h.client(alice).sends("to open", h.client(alice).password(openKey), "opened vpn 192.0.2.1")
		if got := book.Len(); got != wall.KeptUsed+1 {
			t.Errorf("%d are remembered, want all and one more", got)
		}
	})
}

func TestWhereNoMoreCanBeRememberedNothingOpensUntilSomethingIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.used = book
		began := time.Now()
		for n := range wall.MostUsed {
			if err := book.Add(usedAt(began, n)); err != nil {
				t.Fatal(err)
			}
		}
		h.begin(config(vpnDoor()))
		a := h.client(alice)
		a.sends("to open", a.password(openKey),
			"refused vpn 192.0.2.1: more one-time passwords and steps are in use at once than can be remembered")
		if got := book.Len(); got != wall.MostUsed {
			t.Errorf("%d are remembered, want %d", got, wall.MostUsed)
		}
		if err := book.Remove(usedAt(began, 5)); err != nil {
			t.Fatal(err)
		}
		a.sends("when there is room", a.password(openKey), "opened vpn 192.0.2.1")
	})
}
