package methods

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
)

// A datagram with the length of a password that is no password opens nothing. The daemon
// does not receive datagrams of another length, because the kernel checks the length.
func TestDatagramsOfTheWrongLengthAreNotHeard(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "openssl")
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(otpDoor("vpn", 22, 2000, patient))
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		source := lab.Source(1, server)
		good := l.Password(otpOpens, source, lab.Minute())
		was := d.Status().Doors[0].Counters
		for _, data := range []string{"", good[:63], good, good + "\n\n", good + good} {
			l.SendDatagram(source, server, 2000, data)
		}
		if l.AdmitsAtOnce(source, server, 22) {
			t.Error("admitted")
		}
		// The daemon handles datagrams in order. When it has handled later ones, it has
		// handled all.
		l.SendDatagram(source, server, 2000, strings.Repeat("0", 64)+"\n")
		d.WaitFor("reset", "door=vpn", "source="+source.String()+" ")
		l.SendDatagram(source, server, 2000, good+"\n")
		d.WaitFor("opened", "door=vpn", "source="+source.String()+" ")
		if now := d.Status().Doors[0].Counters; now.Resets != was.Resets+1 || now.Knocks != was.Knocks+1 {
			t.Errorf("the daemon has heard %+v, and before %+v", now, was)
		}
		if now := d.Logged("source=" + source.String() + " "); now != 4 {
			t.Errorf("%d events, want 4: refused, reset, knock, opened", now)
		}
	}
}

// Only a password of this minute and for this address opens the door. The client need not
// wait after it has sent the password.
func TestWhichPasswordsAreGood(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "openssl")
	l := lab.New(t)
	l.ServeTCP(22)
	l.ServeTCP(23)
	l.ServeTCP(24)
	l.ServeTCP(25)
	d := l.Run(otpDoor("patient", 22, 2000, patient) + otpDoor("strict", 23, 2001, "") + `
door "both" {
  ports    = [24]
  sequence = [4113, "27911/udp", 1840]
  otp {
    port        = "2002/udp"
    open_secret = "` + otpOpens + `"
    skew        = "1m"
  }
}`)
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(server.String(), func(t *testing.T) {
			t.Parallel()
			n := 0
			client := func() netip.Addr { n++; return lab.Source(n, server) }
			// A password is for one source.
			a, b := client(), client()
			l.SendDatagram(b, server, 2000, l.Password(otpOpens, a, lab.Minute())+"\n")
			d.WaitFor("reset", "door=patient", "source="+b.String()+" ", "no one-time password of this minute for this address")
			if l.AdmitsAtOnce(b, server, 22) {
				t.Error("admitted with the password of another address")
			}

			// A password is for one minute, more or less the skew.
			for _, c := range []struct {
				name string
				door string
				port uint16
				late int64
				good bool
			}{
				{"of the last minute", "strict", 2001, -1, false},
				{"of the next minute but one", "strict", 2001, 2, false},
				{"of the last minute", "patient", 2000, -1, true},
				{"of five minutes ago", "patient", 2000, -5, false},
				{"of five minutes from now", "patient", 2000, 5, false},
			} {
				source := client()
				awayFromTurns()
				l.SendDatagram(source, server, c.port, l.Password(otpOpens, source, lab.Minute()+c.late)+"\n")
				want := map[bool]string{true: "opened", false: "reset"}[c.good]
				d.WaitFor(want, "door="+c.door, "source="+source.String()+" ")
				port := 22 + int(c.port-2000)
				if got := l.Admitted(c.good, source, server, port); got != c.good {
					t.Errorf("the password %s opens the door %s: %v, want %v", c.name, c.door, got, c.good)
				}
			}
			strict := client()
			awayFromTurns()
			if err := l.OnFirstSYNAfter(strict, server, 23, l.PreparePassword(otpOpens, strict, server, 2001)); err != nil {
				t.Errorf("with a password of this minute: %v", err)
			}

			// There is no pause between password and SYN.
			for range 50 {
				source := client()
				if err := l.OnFirstSYNAfter(source, server, 22, l.PreparePassword(otpOpens, source, server, 2000)); err != nil {
					t.Fatalf("without a pause: %v", err)
				}
			}

			// At a door with a sequence and passwords, either opens the door.
			knocks, sends := client(), client()
			if err := l.OnFirstSYNAfter(sends, server, 24, l.PreparePassword(otpOpens, sends, server, 2002)); err != nil {
				t.Errorf("with a password at the door with both: %v", err)
			}
			if l.AdmitsAtOnce(knocks, server, 24) {
				t.Error("admitted at the door with both without knocks")
			}
			l.Knock(knocks, server, lab.Knocks...)
			if !l.Admits(knocks, server, 24) {
				t.Error("refused at the door with both after knocks")
			}
		})
	}
}

// A password is good once, even if the daemon reloads, stops or is killed in between.
func TestAPasswordIsGoodOnce(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "openssl")
	l := lab.New(t)
	l.ServeTCP(22)
	rules := otpDoor("vpn", 22, 2000, patient)
	d := l.Run(rules)
	sources := map[netip.Addr]string{}
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		sources[server] = usePassword(d, "vpn", lab.Source(1, server), server, 2000)
	}
	replay := func(when string) {
		t.Helper()
		for server, password := range sources {
			before := d.Status().Doors[0].Counters
			l.SendDatagram(lab.Source(1, server), server, 2000, password)
			// The byte after the password is ignored, so this is the same password.
			l.SendDatagram(lab.Source(1, server), server, 2000, password[:64]+"\x00")
			eventually.True(t, when+", both replays are counted", func() bool {
				return d.Status().Doors[0].Counters.Replayed == before.Replayed+2
			})
			d.WaitFor("replayed", "door=vpn", "source="+lab.Source(1, server).String()+" ")
			if after := d.Status().Doors[0].Counters; after.Opened != before.Opened || after.Refreshed != before.Refreshed {
				t.Errorf("%s, a replay has opened the door", when)
			}
			if l.AdmitsAtOnce(lab.Source(1, server), server, 22) {
				t.Errorf("%s, a client that repeats a password is admitted", when)
			}
		}
	}
	replay("at once")
	_, err := control.NewClient(d.Control).Reload(context.Background(), "")
	lab.Must(t, err)
	replay("after a reload")
	lab.Must(t, d.Stop(syscall.SIGTERM))
	d = l.Run(rules)
	replay("after stop and start")
	d.Stop(syscall.SIGKILL)
	d = l.Run(rules)
	replay("after a kill")
	// Passwords of other minutes are still good. The one of the next minute was not used,
	// even if the test began a minute ago.
	for server := range sources {
		l.SendDatagram(lab.Source(1, server), server, 2000, l.Password(otpOpens, lab.Source(1, server), lab.Minute()+1)+"\n")
		if !l.Admits(lab.Source(1, server), server, 22) {
			t.Error("refused with another password")
		}
	}
}

// usePassword opens a door with a password of this minute, and closes the window by
// command. It returns the datagram.
func usePassword(d *lab.Daemon, door string, source, server netip.Addr, port uint16) string {
	t := d.Lab.T
	t.Helper()
	datagram := d.Lab.Password(otpOpens, source, lab.Minute()) + "\n"
	d.Lab.SendDatagram(source, server, port, datagram)
	d.WaitFor("opened", "source="+source.String()+" ")
	_, err := control.NewClient(d.Control).Close(context.Background(), door, source.String(), false)
	lab.Must(t, err)
	return datagram
}

// If the file of used passwords is damaged, passwords that may have been used do not open
// the door.
func TestAUsedPasswordIsRefusedAfterDamage(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "openssl")
	l := lab.New(t)
	l.ServeTCP(22)
	rules := otpDoor("vpn", 22, 2000, patient)
	d := l.Run(rules)
	source := lab.Source(1, lab.Server4)
	password := usePassword(d, "vpn", source, lab.Server4, 2000)
	d.Stop(syscall.SIGKILL)
	used := d.Control + ".used"
	text, err := os.ReadFile(used)
	lab.Must(t, err)
	lab.Must(t, os.WriteFile(used, bytes.Replace(text, []byte(" otp "), []byte(" otq "), 1), 0o600))
	d = l.Run(rules)
	d.WaitFor(used + " was damaged (line 1: it is not as it was written)")
	l.SendDatagram(source, lab.Server4, 2000, password)
	d.WaitFor("refused", "source="+source.String()+" ", "it may have been used before")
	if l.AdmitsAtOnce(source, lab.Server4, 22) {
		t.Error("admitted with a password that may have been used")
	}
}

// Thousands of datagrams with garbage of the length of a password, from one source, do not
// prevent passwords of other sources from opening the door, and do not fill the log.
func TestFloodOfGarbageKeepsNoPasswordFromOpening(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "openssl")
	l := lab.New(t)
	l.ServeTCP(22)
	d := l.Run(otpDoor("vpn", 22, 2000, patient))
	// The garbage stays below the kernel's rate limit for the knocks of a door: 20,000
	// packets a second after a burst of 5,000. Packets above it are not logged, whoever
	// sends them.
	const tries, garbage, rate = 5, 3000, 20000
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		for n := range tries {
			source := lab.Source(n+2, server)
			password := l.PreparePassword(otpOpens, source, server, 2000)
			time.Sleep(garbage * time.Second / rate)
			err := l.OnFirstSYNAfter(source, server, 22, func() error {
				if err := garbageFrom(lab.Source(1, server), server, 2000, garbage); err != nil {
					return err
				}
				return password()
			})
			if err != nil {
				t.Errorf("%s: try %d: %v", server, n+1, err)
			}
		}
	}
	if heard := d.Status().Doors[0].Counters.Resets; heard < tries*garbage/10 {
		t.Errorf("of %d datagrams with garbage, %d were heard: too few to prove anything", 2*tries*garbage, heard)
	}
	if lines := d.Logged("reset"); lines > 2*tries*4 {
		t.Errorf("the log has %d lines about the garbage", lines)
	}
}
