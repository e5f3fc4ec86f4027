package effective

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// trapsOf returns the set of a door's traps.
func trapsOf(d *Door) map[packet.Port]bool {
	traps := map[packet.Port]bool{}
	for _, r := range d.Traps {
		for n := int(r.First); n <= int(r.Last); n++ {
			traps[packet.Port{Number: uint16(n), Protocol: r.Protocol}] = true
		}
	}
	return traps
}

// chosen returns the traps of a door with this body on a host on which programs listen.
func chosen(t *testing.T, body string, host Host) (Door, map[packet.Port]bool) {
	t.Helper()
	c, err := Resolve(doorWith(t, body), someTime, host)
	if err != nil {
		t.Fatal(err)
	}
	return c.Doors[0], trapsOf(&c.Doors[0])
}

func TestThereAreAsManyTrapsAsWanted(t *testing.T) {
	for _, n := range []int{0, 1, 2, 6, 7, 64, 1024} {
		_, traps := chosen(t, fmt.Sprintf("sequence = [4113, \"27911/udp\", 1840]\ntraps = %d", n), nothingListens)
		if len(traps) != n {
			t.Errorf("%d traps, want %d", len(traps), n)
		}
	}
	if _, traps := chosen(t, `sequence = [4113, "27911/udp", 1840]`, nothingListens); len(traps) != 64 {
		t.Errorf("%d traps by default", len(traps))
	}
}

// An ascending or descending scan meets a trap before and after each knock.
func TestBesideEachKnockIsATrapOnBothSides(t *testing.T) {
	for name, body := range map[string]string{
		"sequence": "sequence = [4113, \"27911/udp\", 1840]\nclose_sequence = [30000, 30100, \"30200/udp\"]",
		"rolling":  halfMinute,
		"as many as there are knocks": func() string {
			var knocks []string
			for i := range 32 {
				knocks = append(knocks, strconv.Itoa(1000+(i*7919)%60000))
			}
			return "sequence = [" + strings.Join(knocks, ", ") + "]"
		}(),
		"knocks side by side":         "sequence = [4113, 4114, 4112, 4115]",
		"the first and the last port": `sequence = [1, 65535, "1/udp", "65535/udp"]`,
	} {
		t.Run(name, func(t *testing.T) {
			d, traps := chosen(t, body, nothingListens)
			if len(traps) != d.TrapCount {
				t.Errorf("%d traps, want %d", len(traps), d.TrapCount)
			}
			for p := range traps {
				if p.Number == 0 {
					t.Errorf("%s is a trap", p)
				}
			}
			for _, k := range d.AllKnocks() {
				for _, side := range []int{-1, 1} {
					n := int(k.Number) + side
					for d.Knocks(packet.Port{Number: uint16(n), Protocol: k.Protocol}) {
						n += side
					}
					if n >= 1 && n <= 65535 && !traps[packet.Port{Number: uint16(n), Protocol: k.Protocol}] {
						t.Errorf("%d beside %s is no trap: %v", n, k, d.Traps)
					}
				}
				if traps[k] {
					t.Errorf("the knock %s is a trap", k)
				}
			}
		})
	}
}

// Where the neighbour of a knock is taken, the next free port is the trap.
func TestTrapsAreNotWhereSomethingIs(t *testing.T) {
	const text = `
door "a" {
  ports          = [22, 4112, "1000-2000"]
  sequence       = [4113, "27911/udp", 1840]
  close_sequence = [4115, 5000, 6000]
}
door "b" {
  ports    = ["27912/udp"]
  sequence = [4116, "27910/udp", 4117]
  otp {
    port        = "27909/udp"
    open_secret = "hipjazz"
  }
}
door "c" {
  ports              = [443]
  one_time_sequences = "%s"
}
door "d" {
  ports = [25]
  rolling {
    secret = "correct horse battery staple"
    ports  = "4000-4300"
  }
}
`
	c := load(t, fmt.Sprintf(text, list(t, "4111,4110,8000")))
	listening := map[packet.Port]bool{tcp(4108): true, udp(27908): true, tcp(4999): true}
	now, err := Resolve(c, someTime, Host{Served: listening})
	if err != nil {
		t.Fatal(err)
	}
	for i := range now.Doors {
		d := &now.Doors[i]
		for p := range trapsOf(d) {
			if listening[p] {
				t.Errorf("at the trap %s of %s something listens", p, d.Name)
			}
			for j := range now.Doors {
				if o := &now.Doors[j]; o.Guards(p) || o.Knocks(p) || slices.ContainsFunc(o.Datagrams(), func(d method.Datagram) bool { return d.Port == p }) {
					t.Errorf("the trap %s of %s is a port of %s", p, d.Name, o.Name)
				}
			}
		}
	}
	isFree := func(n int) bool {
		return !listening[tcp(uint16(n))] && !packet.InRanges(tcp(uint16(n)), now.NamedPorts())
	}
	first := 4113
	for !isFree(first) {
		first--
	}
	if traps := trapsOf(&now.Doors[0]); !traps[tcp(uint16(first))] || !traps[tcp(4998)] || !traps[udp(27907)] {
		t.Errorf("%d, 4998 and 27907/udp are the next that are free, and not all traps: %v", first, now.Doors[0].Traps)
	}
}

// full returns a host with a program at every port except some.
func full(but ...packet.Port) Host {
	h := Host{Served: map[packet.Port]bool{}}
	for n := range 1 << 16 {
		h.Served[tcp(uint16(n))], h.Served[udp(uint16(n))] = true, true
	}
	for _, p := range but {
		delete(h.Served, p)
	}
	return h
}

// On a host without free ports there may be fewer traps, or none.
func TestTrapsWhereNothingIsFree(t *testing.T) {
	const body = `sequence = [4113, "27911/udp", 1840]`
	if _, traps := chosen(t, body, full()); len(traps) != 0 {
		t.Errorf("traps where all is taken: %v", traps)
	}
	_, traps := chosen(t, body, full(tcp(4120)))
	if diff := cmp.Diff(map[packet.Port]bool{tcp(4120): true}, traps); diff != "" {
		t.Errorf("one port is free (-want +got):\n%s", diff)
	}
}

func TestTrapsFollowFromTheDoor(t *testing.T) {
	load := func(name, sequence string) []packet.PortRange {
		text := fmt.Sprintf("door %q {\nports = [22]\nsequence = %s\n}\n", name, sequence)
		return at(t, load(t, text), someTime).Doors[0].Traps
	}
	const sequence = `[4113, "27911/udp", 1840]`
	first := load("a", sequence)
	if again := load("a", sequence); !slices.Equal(first, again) {
		t.Errorf("built twice: %v and %v", first, again)
	}
	if other := load("b", sequence); slices.Equal(first, other) {
		t.Errorf("of another name: %v", other)
	}
	if other := load("a", `[4113, "27911/udp", 1841]`); slices.Equal(first, other) {
		t.Errorf("of other knocks: %v", other)
	}
}

// No trap is scattered over ephemeral UDP ports, where a late answer may arrive.
func TestNoUDPTrapIsScatteredWhereAnswersCome(t *testing.T) {
	for i := range 20 {
		d, traps := chosen(t, fmt.Sprintf("sequence = [\"%d/udp\", \"27911/udp\", \"61500/udp\"]\ntraps = 1024", 2000+i), nothingListens)
		scattered := 0
		for p := range traps {
			if slices.ContainsFunc(d.AllKnocks(), func(k packet.Port) bool {
				return int(k.Number)-near <= int(p.Number) && int(p.Number) <= int(k.Number)+near
			}) {
				continue
			}
			scattered++
			if p.Protocol != packet.UDP || p.Number < firstScattered || firstEphemeral <= p.Number && p.Number <= lastEphemeral {
				t.Errorf("%s is a trap", p)
			}
		}
		if scattered == 0 {
			t.Error("no trap is scattered")
		}
	}
	_, traps := chosen(t, "sequence = [2000, 27911, 61500]\ntraps = 1024", nothingListens)
	ephemeral := 0
	for p := range traps {
		if firstEphemeral <= p.Number && p.Number <= lastEphemeral {
			ephemeral++
		}
	}
	if ephemeral == 0 {
		t.Error("no TCP trap is in the range, where a SYN is no answer")
	}
}

// A door with the longest sequences has no more traps than TrapCount. If these are too
// few for both sides, an ascending scan meets one before each knock.
func TestFewTrapsStandBeforeScansUpwards(t *testing.T) {
	d, traps := chosen(t, "sequence = [4113, 5000, 1840]\ntraps = 3", nothingListens)
	want := map[packet.Port]bool{tcp(4112): true, tcp(4999): true, tcp(1839): true}
	if diff := cmp.Diff(want, traps); diff != "" {
		t.Errorf("of %v (-want +got):\n%s", d.AllKnocks(), diff)
	}
}

// Resolving the maximum number of doors is fast, as the daemon does it at every step of a
// rolling sequence. Only work that grows with the square of the doors would take a minute.
func TestManyDoorsHaveTheirTrapsSoon(t *testing.T) {
	const maxDoors = 1024
	var text strings.Builder
	for i := range maxDoors {
		fmt.Fprintf(&text, "door \"d%d\" {\nports = [%d]\nsequence = [%d, \"%d/udp\", %d]\ntraps = 64\n}\n",
			i, 10000+i, 20000+7*i, 30000+11*i, 45000+13*i)
	}
	text.WriteString("wall { trusted = [\"192.0.2.1\"] }\n")
	c := load(t, text.String())
	began := time.Now()
	for _, d := range at(t, c, someTime).Doors {
		if n := len(trapsOf(&d)); n != d.TrapCount {
			t.Errorf("%s has %d traps", d.Name, n)
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
}
