package wall_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

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
		if n := len(h.wall.Windows(wall.WindowQuery{})); n != 12 {
			t.Fatalf("the network has %d windows, want 12", n)
		}
		e := h.explain(late.addr.String())[0]
		if e.In || !strings.Contains(e.Sentence, "clients of its network have three times as many open windows as are left of max_windows") {
			t.Errorf("the thirteenth client: %+v", e)
		}
		if e := h.explain(bob.String())[0]; strings.Contains(e.Sentence, "gets no window now") {
			t.Errorf("a client of another network, which has not knocked: %+v", e)
		}
		time.Sleep(time.Second)
		if e := h.explain("10.0.0.99")[0]; e.In || !strings.Contains(e.Sentence, "It gets no window now, even if it knocks: clients of its network") {
			t.Errorf("another client of that network, which has not knocked: %+v", e)
		}
		early.knock(7001)
		h.expect("a client of the network with a window knocks again", early.dial(443), accepted)
		found := h.wall.Findings()
		if len(found) != 1 || found[0].Severity != doctor.Warning || found[0].Door != "web" || found[0].IPVersion != 4 ||
			!strings.Contains(found[0].Problem, "12 open windows for IPv4, of 16") {
			t.Errorf("the door is crowded, and the findings are %+v", found)
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

// A spent window takes no room, so whoever had one gets another only if there is room for it.
func TestSpentWindowsAreOpenedAnewOnlyWhileThereIsRoom(t *testing.T) {
	c := config(limited(door("web", 443, 7001), 1))
	c.Wall.MaxWindows = 4
	guarded(t, c, func(h *host) {
		var clients []*client
		for i := range byte(6) { // each of a network of its own
			a := h.client(netip.AddrFrom4([4]byte{20 + i, 0, 2, 1}))
			a.knock(7001)
			h.expect("its window", a.dial(443), accepted)
			clients = append(clients, a)
		}
		if n := len(h.wall.Windows(wall.WindowQuery{})); n != 0 {
			t.Fatalf("%d windows are open, and all are spent", n)
		}
		for _, a := range clients {
			a.knock(7001)
			synctest.Wait()
		}
		if n := len(h.wall.Windows(wall.WindowQuery{})); n != 4 {
			t.Errorf("%d windows are open, and max_windows is 4", n)
		}
		if err := h.raise(c); err != nil {
			t.Errorf("a reload of the same rules: %v", err)
		}
	})
}

// However many networks somebody has, some windows are left for others.
func TestSomeNetworksDoNotGetAllWindows(t *testing.T) {
	c := config(door("web", 443, 7001))
	c.Wall.MaxWindows = 64
	guarded(t, c, func(h *host) {
		for i := range byte(200) {
			h.client(netip.AddrFrom4([4]byte{20 + i%5, 0, 2, i})).knock(7001)
			synctest.Wait()
		}
		open := map[string]int{}
		for _, w := range h.wall.Windows(wall.WindowQuery{}) {
			open[strings.Split(w.Source.String(), ".")[0]]++
		}
		// 64 - 5*12 = 4 are left, and 3*4 are as many as each network has.
		if len(open) != 5 || open["20"] != 12 || open["24"] != 12 {
			t.Errorf("the networks have %v", open)
		}
		other := h.client(alice)
		other.knock(7001)
		h.expect("a client of another network", other.dial(443), accepted)
		time.Sleep(2 * time.Minute)
		if found := h.wall.Findings(); len(found) != 0 {
			t.Errorf("nobody was refused for two minutes, and the findings are %+v", found)
		}
	})
}

// The share holds for windows that nobody has knocked for, too, and not for those that are open.
func TestAShareIsOfWindowsByHandAndOfOtherHosts(t *testing.T) {
	c := sharing(config(door("web", 443, 7001)))
	c.Wall.MaxWindows = 16
	guarded(t, c, func(h *host) {
		const full = "clients of its network have three times as many open windows as are left of max_windows"
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
		if n := len(h.wall.Windows(wall.WindowQuery{})); n != 12 {
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
			h.client(netip.AddrFrom4([4]byte{20 + i, 0, 2, i})).knock(7001)
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
			if n := len(s.Windows); n > 0 && s.WindowsNext != "" && s.WindowsNext != s.Windows[n-1].Door+"/"+s.Windows[n-1].Source.String() {
				t.Errorf("%+v: the next come after %s", test.wanted, s.WindowsNext)
			}
			if s.Doors[0].OpenWindows != 9 || s.Doors[1].OpenWindows != 1 {
				t.Errorf("%+v: %d and %d windows are open", test.wanted, s.Doors[0].OpenWindows, s.Doors[1].OpenWindows)
			}
		}
	})
}

// A client that reads page after page gets each window once, in order.
func TestStatusHasPages(t *testing.T) {
	guarded(t, config(door("web", 443, 7001), sshDoor()), func(h *host) {
		for _, source := range slices.Backward(crowd(9)) {
			h.client(source).knock(7001)
			synctest.Wait()
		}
		knockAll(h.client(alice))
		synctest.Wait()
		for limit := 1; limit <= 11; limit++ {
			var got []wall.WindowStatus
			wanted := wall.WindowQuery{Limit: limit}
			for pages := 1; ; pages++ {
				s, err := h.wall.Status(wanted)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, s.Windows...)
				if s.WindowsNext == "" {
					if want := (10 + limit - 1) / limit; pages != want {
						t.Errorf("by %d: %d pages, want %d", limit, pages, want)
					}
					break
				}
				if wanted.After, err = wall.ParseWindowPlace(s.WindowsNext); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(h.wall.Windows(wall.WindowQuery{}), got, compareSources); diff != "" {
				t.Errorf("by %d (-want +got):\n%s", limit, diff)
			}
		}
	})
}
