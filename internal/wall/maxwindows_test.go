package wall_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// One network cannot have all windows of a door, so that whoever knows the knocks and has
// many addresses does not lock the others out.
func TestANetworkGetsItsShareOfTheWindows(t *testing.T) {
	c := config(door("web", 443, 7001), sshDoor())
	c.Wall.MaxWindows = 16
	telling(t, c, func(h *teller) {
		var clients []*client
		for _, source := range crowd(13) {
			clients = append(clients, h.client(source))
			clients[len(clients)-1].knock(7001)
			synctest.Wait()
		}
		early, late := clients[0], clients[12]
		if n := len(h.wall.Windows()); n != 12 {
			t.Fatalf("the network has %d windows, want 12", n)
		}
		e := h.explain(late.addr.String())[0]
		if e.In || !strings.Contains(e.Sentence, "clients of its network have three quarters of the open windows that max_windows allows") {
			t.Errorf("the thirteenth client: %+v", e)
		}
		early.knock(7001)
		h.expect("a client of the network with a window knocks again", early.dial(443), accepted)
		if found := h.wall.Findings(); len(found) != 0 {
			t.Errorf("the door has room for others, and there are findings: %+v", found)
		}
		other := h.client(alice)
		other.knock(7001)
		h.expect("a client of another network", other.dial(443), accepted)
		knockAll(late)
		h.expect("the thirteenth client at another door", late.dial(22), accepted)
		if _, err := h.wall.Close("web", early.addr.String(), false); err != nil {
			t.Error(err)
		}
		late.knock(7001)
		h.expect("the thirteenth client when another window is closed", late.dial(443), accepted)
	})
}

// The share holds for windows that nobody has knocked for, too, and not for those that are open.
func TestAShareIsOfWindowsByHandAndOfOtherHosts(t *testing.T) {
	c := sharing(config(door("web", 443, 7001)))
	c.Wall.MaxWindows = 16
	guarded(t, c, func(h *host) {
		const full = "clients of its network have three quarters of the open windows that max_windows allows"
		from := crowd(13)
		for _, source := range from[:6] {
			if _, err := h.wall.Open("web", source.String(), 0); err != nil {
				t.Fatal(err)
			}
		}
		for _, source := range from[6:12] {
			if got := h.hears(openAt("web", source.String(), time.Second)); got != "<nil>" {
				t.Fatal(got)
			}
		}
		if _, err := h.wall.Open("web", from[12].String(), 0); err == nil || !strings.Contains(err.Error(), full) {
			t.Errorf("by hand: %v", err)
		}
		h.hears(openAt("web", from[12].String(), time.Second))
		if n := len(h.wall.Windows()); n != 12 {
			t.Errorf("the network has %d windows, want 12", n)
		}
		if _, err := h.wall.Open("web", from[0].String(), time.Minute); err != nil {
			t.Errorf("the window that is open already: %v", err)
		}
		if _, err := h.wall.Open("web", alice.String(), 0); err != nil {
			t.Errorf("another network: %v", err)
		}
	})
}

// A door that can open no window says so, with the version of IP.
func TestAFullDoorIsFound(t *testing.T) {
	c := config(door("web", 443, 7001), sshDoor())
	c.Wall.MaxWindows = 16
	guarded(t, c, func(h *host) {
		for i := range byte(16) {
			h.client(netip.AddrFrom4([4]byte{20 + i%2, 0, 2, i})).knock(7001)
			synctest.Wait()
		}
		found := h.status().Findings
		if len(found) != 1 || found[0].Severity != doctor.Error || found[0].Door != "web" || found[0].IPVersion != 4 || found[0].Bare ||
			!strings.Contains(found[0].Problem, "16 open windows for IPv4") {
			t.Errorf("findings: %+v", found)
		}
	})
}

// New rules with less room than there are windows change nothing.
func TestMaxWindowsIsNotLessThanTheOpenOnes(t *testing.T) {
	c := config(door("web", 443, 7001))
	guarded(t, c, func(h *host) {
		for _, source := range crowd(17) {
			h.client(source).knock(7001)
			synctest.Wait()
		}
		less := config(door("web", 443, 7001), sshDoor())
		less.Wall.MaxWindows = 16
		err := h.raise(less)
		if err == nil || !strings.Contains(err.Error(), "door web has 17 open windows of one IP version, and max_windows is 16") {
			t.Errorf("error %v", err)
		}
		if n := len(h.status().Doors); n != 1 {
			t.Errorf("there are %d doors, want the former one", n)
		}
		late := h.client(alice)
		late.knock(7001)
		h.expect("the former rules", late.dial(443), accepted)
	})
}

// A client gets only the windows that it asks for, and learns how many there are.
func TestStatusSelectsWindows(t *testing.T) {
	guarded(t, config(door("web", 443, 7001), sshDoor()), func(h *host) {
		for _, source := range slices.Backward(crowd(9)) {
			h.client(source).knock(7001)
			synctest.Wait()
		}
		knockAll(h.client(alice))
		synctest.Wait()
		source := func(text string) packet.Source {
			s, err := packet.ParseSource(text)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		for _, test := range []struct {
			wanted wall.WindowQuery
			want   string
		}{
			{wall.WindowQuery{Limit: 1}, "ssh 192.0.2.1"},
			{wall.WindowQuery{Limit: 3}, "ssh 192.0.2.1, web 10.0.0.1, web 10.0.0.2"},
			{wall.WindowQuery{Door: "web", Limit: 2}, "web 10.0.0.1, web 10.0.0.2"},
			{wall.WindowQuery{Door: "ssh"}, "ssh 192.0.2.1"},
			{wall.WindowQuery{Door: "none"}, ""},
			{wall.WindowQuery{Sources: []packet.Source{source("10.0.0.4/31"), source("192.0.2.9")}}, "web 10.0.0.4, web 10.0.0.5"},
			{wall.WindowQuery{Sources: []packet.Source{source("::/0")}}, ""},
		} {
			s, err := h.wall.Status(test.wanted)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range s.Windows {
				got = append(got, w.Door+" "+w.Source.String())
			}
			if text := strings.Join(got, ", "); text != test.want {
				t.Errorf("%+v: %s, want %s", test.wanted, text, test.want)
			}
			if s.Doors[0].OpenWindows != 9 || s.Doors[1].OpenWindows != 1 {
				t.Errorf("%+v: %d and %d windows are open", test.wanted, s.Doors[0].OpenWindows, s.Doors[1].OpenWindows)
			}
		}
	})
}
