package wall_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

const penalty = 20 * time.Second

// trapping returns a door with a trap at 7001.
func trapping(d ruleset.Door) ruleset.Door {
	d.TrapList, d.Penalty = []packet.PortRange{{First: 7001, Last: 7001, Protocol: packet.TCP}}, penalty
	return d
}

func TestASourceThatTriesATrapCannotKnockForAWhile(t *testing.T) {
	guarded(t, config(trapping(sshDoor())), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 7001)
		synctest.Wait()
		h.trail.expect(h.t, nil, "knock ssh 192.0.2.1 1/3", "knock ssh 192.0.2.1 2/3", "trapped ssh 192.0.2.1 2/3")
		if s := h.status(); len(s.Attempts) != 0 || s.Doors[0].Counters.Trapped != 1 || s.Doors[0].Counters.Resets != 0 {
			h.t.Errorf("attempts %+v, counters %+v", s.Attempts, s.Doors[0].Counters)
		}
		a.became("the last knock", ports(9000))
		time.Sleep(penalty - time.Nanosecond)
		a.became("all of them, before the penalty is over", ports(7000, 8000, 9000))
		h.client(bob).became("somebody else", ports(7000, 8000, 9000), "opened ssh 192.0.2.2 3/3")
		time.Sleep(time.Nanosecond)
		a.became("when it is over", ports(7000, 8000, 9000), "opened ssh 192.0.2.1 3/3")
	})
}

func TestATrapEndsTheAttemptsAtAllLocksOfItsDoorAndAtNoOther(t *testing.T) {
	d := trapping(sshDoor())
	d.CloseSequence = ports(4000, 5000)
	other := door("web", 443, 6000, 6500)
	guarded(t, config(d, other), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 4000, 6000)
		synctest.Wait()
		if n := h.status().Counters.Attempts; n != 3 {
			h.t.Fatalf("%d attempts", n)
		}
		h.trail.take()
		a.knock(7001)
		synctest.Wait()
		// The event is of the attempt to open.
		h.trail.expect(h.t, []audit.Kind{audit.Trapped, audit.Reset}, "trapped ssh 192.0.2.1 1/3")
		if n := h.status().Counters.Attempts; n != 1 {
			h.t.Errorf("%d attempts, want that at the other door", n)
		}
		a.became("the other door", ports(6500), "opened web 192.0.2.1 2/2")
	})
}

func TestATrapClosesNoWindow(t *testing.T) {
	guarded(t, config(trapping(sshDoor())), func(h *host) {
		a := h.client(alice)
		a.knock(7000, 8000, 9000)
		synctest.Wait()
		h.trail.take()
		a.knock(7001)
		synctest.Wait()
		h.trail.expect(h.t, nil, "trapped ssh 192.0.2.1") // of an attempt that is complete there is nothing to end
		h.expect("alice's window is open", a.dial(22), accepted)
		if got := h.left("ssh", alice); got != window {
			h.t.Errorf("it is open for %s", got)
		}
	})
}

func TestATrapThatIsUnreadWhenAReloadRemovesItHasAnEvent(t *testing.T) {
	guarded(t, config(trapping(sshDoor())), func(h *host) {
		a := h.client(alice)
		log := h.log()
		log.hold()
		a.knock(7001)
		if err := h.raise(config(sshDoor())); err != nil {
			h.t.Fatal(err)
		}
		h.trail.take()
		log.resume()
		synctest.Wait()
		h.trail.expect(h.t, nil, "trapped ssh 192.0.2.1")
	})
}

// Traps are the ports where no program listens when the table is made.
func TestTrapsAreWhereNoProgramListens(t *testing.T) {
	d := sshDoor()
	d.TrapCount, d.Penalty = 6, penalty
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.listening = map[packet.Port]bool{tcp(7001): true}
		h.begin(config(d))
		a, b := h.client(alice), h.client(bob)
		a.knock(7001, 7000, 8000)
		b.knock(7002, 7000, 8000)
		synctest.Wait()
		h.trail.expect(t, []audit.Kind{audit.Trapped}, "trapped ssh 192.0.2.2")
		a.became("who has used the program", ports(9000), "opened ssh 192.0.2.1 3/3")
		b.became("who has met the next port", ports(9000))
	})
}

func TestExplainSaysThatASourceTriedATrap(t *testing.T) {
	telling(t, config(trapping(sshDoor())), func(h *teller) {
		a := h.client(alice)
		a.knock(7000)
		time.Sleep(time.Second)
		tried := time.Now()
		a.knock(7001)
		synctest.Wait()
		h.because(alice, wall.TrappedWhy, tried, "it tried a trap, 7001/tcp, at "+at(tried, "0s")+
			": 7001/tcp is no knock of this door; its knocks are ignored for another 20s, and after that it can knock again")
		time.Sleep(5 * time.Second)
		a.knock(7000, 8000, 9000) // which the kernel keeps away
		h.because(alice, wall.TrappedWhy, tried, "it tried a trap, 7001/tcp, at "+at(tried, "5s")+
			": 7001/tcp is no knock of this door; its knocks are ignored for another 15s, and after that it can knock again")
		time.Sleep(penalty)
		h.because(alice, wall.TrappedWhy, tried, "it tried a trap, 7001/tcp, at "+at(tried, "25s")+
			": 7001/tcp is no knock of this door; its attempt has ended, and it can knock again")
	})
}

// The kernel traps a source that tries many ports, and logs it.
func TestASprayEndsAllAttemptsOfItsSource(t *testing.T) {
	telling(t, config(sshDoor(), door("web", 443, 6000, 6500)), func(h *teller) {
		sprays := func(addr netip.Addr) {
			h.log().handler.Logged([]byte(" sprayed"), packet.Packet{Source: addr, Destination: server, Port: tcp(1234), Flags: packet.SYN}, nil)
		}
		h.client(alice).knock(7000, 8000, 6000)
		synctest.Wait()
		h.trail.take()
		sprays(alice)
		sprays(bob) // who has knocked at no door
		for _, e := range h.trail.past() {
			if e.Kind == audit.Trapped && (e.Code != audit.CodeSpray || e.Failed) {
				h.t.Errorf("the trail has %s", e)
			}
		}
		h.trail.expect(h.t, []audit.Kind{audit.Trapped, audit.Reset},
			"trapped ssh 192.0.2.1 2/3: it tries ports that nothing serves",
			"trapped web 192.0.2.1 1/2: it tries ports that nothing serves",
			"trapped 192.0.2.2: it tries ports that nothing serves")
		if n := h.status().Counters.Attempts; n != 0 {
			h.t.Errorf("%d attempts are under way", n)
		}
		if got := h.explain(alice.String())[0]; got.Reason != wall.TrappedWhy || !strings.Contains(got.Sentence, "it tried ports that are not knock ports, the last one 1234/tcp") {
			h.t.Errorf("explained as %+v", got)
		}
	})
}
