package wall_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// everyWay returns doors for each way to knock, and the secrets that must not be shown:
// their present knocks and traps, keys, and a password.
func everyWay(t *testing.T) (doors []ruleset.Door, secrets []string) {
	fixed := door("fixed", 22, 17001, 18002, 19003)
	fixed.CloseSequence = ports(14001, 15002)
	fixed.TrapList = []packet.PortRange{{First: 17777, Last: 17777, Protocol: packet.TCP}}
	turning := passworded(rollingDoor("turning", 23, step))
	used := list(t, "16001,16002,16003", "16004,16005,16006")
	used.door.Name = "listed"
	opened := vpnDoor()
	opened.Name = "opened"
	opened.TrapList = nil
	methodOf[*passwords.OTP](opened).Port = packet.Port{Number: 12345, Protocol: packet.UDP}

	secrets = []string{"17001", "18002", "19003", "14001", "15002", "17777", "16001", "16002", "16003", "16004", "12345", used.path}
	for _, key := range [][]byte{openKey, shutKey, methodOf[*rolling.Rolling](turning).Secret.Key()} {
		secrets = append(secrets, string(key), hex.EncodeToString(key))
	}
	for _, away := range []time.Duration{-step, 0, step} {
		for _, p := range present(t, turning, time.Now().Add(away)) {
			secrets = append(secrets, fmt.Sprint(p.Number))
		}
	}
	return []ruleset.Door{fixed, turning, used.door, opened}, secrets
}

func TestStatusNamesTheWaysToKnockAndNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doors, secrets := everyWay(t)
		h := newHost(t)
		h.begin(config(doors...))
		a := h.client(alice)
		a.knock(17001, 17777) // a trap
		a.press(present(t, doors[1], time.Now().Add(step)))
		h.client(bob).press(present(t, doors[1], time.Now().Add(step))) // replayed
		h.client(bob).knock(16001, 16002)                               // under way
		data := a.password(openKey)
		a.datagram(packet.Port{Number: 12345, Protocol: packet.UDP}, data)
		synctest.Wait()

		s := h.status()
		two := 2
		want := []wall.DoorStatus{
			{Name: "fixed", Knocks: 3, OpensBy: []string{"sequence"}, Counters: wall.DoorCounters{Knocks: 1, Trapped: 1}},
			{Name: "turning", Knocks: 4, OpensBy: []string{"rolling", "otp"}, OpenWindows: 1, Counters: wall.DoorCounters{Knocks: 8, Opened: 1, Replayed: 1}},
			{Name: "listed", Knocks: 3, OpensBy: []string{"one_time_sequences"}, SequencesLeft: &two, Counters: wall.DoorCounters{Knocks: 2}},
			{Name: "opened", OpensBy: []string{"otp"}, OpenWindows: 1, Counters: wall.DoorCounters{Knocks: 1, Opened: 1}},
		}
		for i, d := range s.Doors {
			w := &want[i]
			w.Ports, w.WindowSeconds, w.Closed = d.Ports, d.WindowSeconds, d.Closed
		}
		if diff := cmp.Diff(want, s.Doors); diff != "" {
			t.Errorf("doors (-want +got):\n%s", diff)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		explained, err := h.wall.Explain("192.0.2.2", h.trail.past)
		if err != nil {
			t.Fatal(err)
		}
		more, err := json.Marshal(explained)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range append(secrets, strings.TrimSpace(string(data))) {
			for _, shown := range []string{string(text), string(more)} {
				if strings.Contains(shown, secret) {
					t.Errorf("%q is in %s", secret, shown)
				}
			}
		}
	})
}

func TestMetricsTellOfTrapsOfWhatIsReplayedAndOfWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doors, _ := everyWay(t)
		h := newHost(t)
		h.begin(config(doors...))
		a := h.client(alice)
		a.knock(17777)
		a.knock(16001, 16002, 16003)
		data := a.password(openKey)
		for range 3 {
			a.datagram(otpPort, data)
		}
		synctest.Wait()
		got := h.gather()
		for name, want := range map[string]float64{
			"trapped_total fixed": 1, "trapped_total turning": 0, "trapped_total listed": 0, "trapped_total opened": 0,
			"replayed_total fixed": 0, "replayed_total turning": 2, "replayed_total listed": 0, "replayed_total opened": 0,
			"one_time_sequences_left listed": 1,
			"opening_seconds":                2,
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s is %v, there: %t, want %v", name, value, ok, want)
			}
		}
		for name := range got {
			if strings.HasPrefix(name, "one_time") && name != "one_time_sequences_left listed" {
				t.Errorf("there is %s", name)
			}
		}
	})
}

// sshByPassword returns a door that only one-time passwords open.
func sshByPassword() ruleset.Door {
	d := vpnDoor()
	d.Name = "ssh"
	return d
}

func TestExplainSaysThatAPasswordWasUsedBefore(t *testing.T) {
	telling(t, config(sshByPassword()), func(h *teller) {
		a := h.client(alice)
		data := a.password(openKey)
		a.datagram(otpPort, data)
		synctest.Wait()
		if _, err := h.wall.Close("ssh", alice.String(), false); err != nil {
			h.t.Fatal(err)
		}
		time.Sleep(time.Second)
		sent := time.Now()
		a.datagram(otpPort, data)
		h.because(alice, wall.ReplayedWhy, sent, "what it sent at "+at(sent, "0s")+" opens the door only once and was used before")
	})
}

func TestExplainSaysThatAStepWasUsedBefore(t *testing.T) {
	d := rollingDoor("ssh", 22, step)
	telling(t, config(d), func(h *teller) {
		toStep(step, time.Second)
		before := present(h.t, d, time.Now().Add(-step))
		h.client(bob).press(before)
		sent := time.Now()
		a := h.client(alice)
		a.press(before)
		h.because(alice, wall.ReplayedWhy, sent, "what it sent at "+at(sent, "0s")+" opens the door only once and was used before")
		time.Sleep(2 * time.Second)
		sent = time.Now()
		a.press(before) // which is summed up
		h.because(alice, wall.ReplayedWhy, sent, "what it sent at "+at(sent, "0s")+" opens the door only once and was used before")
	})
}

func TestExplainSaysWhatMayBeWrongWithAPassword(t *testing.T) {
	telling(t, config(sshByPassword()), func(h *teller) {
		sent := time.Now()
		a := h.client(alice)
		a.datagram(otpPort, a.password([]byte("wrong")))
		time.Sleep(3 * time.Second)
		h.because(alice, wall.BadPassword, sent, "what it sent at "+at(sent, "3s")+" is not a valid one-time password for its address and that minute: "+
			"the secrets differ, a clock is wrong, or the password was made for another address")
		a.datagram(otpPort, a.password(openKey))
		h.because(alice, wall.WindowOpen, unknown, "its window is open for another 30s")
	})
}

func TestExplainSaysThatASourceHasClosedItsWindow(t *testing.T) {
	telling(t, config(reversible(7000, 8000, 9000)), func(h *teller) {
		a := h.client(alice)
		a.opens()
		var closed time.Time
		for _, port := range []uint16{9000, 8000, 7000} {
			time.Sleep(time.Second)
			closed = time.Now()
			a.knock(port)
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		h.because(alice, wall.WindowClosed, closed, "its window was closed at "+at(closed, "10s")+": it has knocked to close it")
	})
}

func TestExplainSaysThatAStepCouldNotBeRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		book := &notebook{}
		h.used = book
		h.begin(config(vpnDoor()))
		book.fail(errInjected)
		a := h.client(alice)
		sent := time.Now()
		a.datagram(otpPort, a.password(openKey))
		synctest.Wait()
		got, err := h.wall.Explain("192.0.2.1", h.trail.past)
		if err != nil {
			t.Fatal(err)
		}
		if e := got[0]; e.Reason != wall.NotOpened || !e.Since.Equal(sent) || !strings.Contains(e.Sentence, "the kernel says no") {
			t.Errorf("%+v", e)
		}
	})
}
