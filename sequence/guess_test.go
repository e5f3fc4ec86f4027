package sequence_test

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

func TestGuesses(t *testing.T) {
	const years = 365.25 * 24 * 3600 * 100_000 // in packets
	for _, tt := range []struct {
		what                     string
		ports, knocks, sequences int
		want                     float64
	}{
		{"one knock", 65535, 1, 1, 65535},
		{"two knocks", 100, 2, 1, 5000},
		{"three knocks", 100, 3, 1, 1e6 / 5},
		{"four knocks", 100, 4, 1, 1e8 / 14},
		{"five knocks", 10, 5, 1, 1e5 / 42},
		{"three sequences at a time", 100, 3, 3, 1e6 / 15},
		{"three knocks of all ports", 65535, 3, 1, 17.84 * years},
		{"three knocks below 10,000", 9999, 3, 1, 23.14 / 365.25 * years},
		{"the most", 65535, sequence.MaxSteps, 1, math.Pow(65535, sequence.MaxSteps) / 55534064877048198},
	} {
		if got := sequence.Guesses(tt.ports, tt.knocks, tt.sequences); math.Abs(got-tt.want) > tt.want/1000 {
			t.Errorf("%s: %g packets, want %g", tt.what, got, tt.want)
		}
	}
}

// guesser sends packets to random ports of a few, from some addresses in turn, as fast as
// 100,000 a second. A packet to a port that no door names ends its source's attempt, as
// the kernel does, unless the guesser is lax.
type guesser struct {
	tracker *sequence.Tracker
	locks   []sequence.Lock
	ports   int
	lax     bool
	random  *rand.Rand
	now     time.Time
	sent    int
}

func (g *guesser) guess(from int) (guessed bool) {
	g.sent++
	g.now = g.now.Add(10 * time.Microsecond)
	p := packet.Packet{
		Source:     netip.AddrFrom4([4]byte{10, 0, byte(from >> 8), byte(from)}),
		SourcePort: uint16(g.random.Uint32()),
		Sequence:   g.random.Uint32(),
		Port:       tcp(uint16(1 + g.random.IntN(g.ports))),
	}
	for lock, l := range g.locks {
		names := false
		for _, step := range l.Steps {
			names = names || step == p.Port
		}
		switch {
		case !names && g.lax:
		case !names:
			g.tracker.Forget(lock, single(p.Source))
		case g.tracker.Knock(lock, p, g.now).Progress == sequence.Completed:
			g.tracker.Forget(lock, single(p.Source))
			guessed = true
		}
	}
	return guessed
}

// The time to guess a sequence is the computed one. Two control cases show that the test
// would notice a mistake: four knocks are guessed far too often at doors of all orders,
// as if any order counted, and so are three where junk ends no attempt.
func TestGuessingTakesAsLongAsComputed(t *testing.T) {
	const (
		packets = 1_500_000
		each    = 100 // packets that an address sends in one go
		sources = 1000
	)
	three, other, four := door(3, 17, 8), door(21, 5, 12), door(3, 12, 8, 5)
	var all []sequence.Lock
	permutations(4, func(order []int) {
		n := func(i int) uint16 { return four.Steps[order[i]].Number }
		all = append(all, door(n(0), n(1), n(2), n(3)))
	})
	for _, tt := range []struct {
		name      string
		locks     []sequence.Lock
		ports     int
		knocks    int
		sequences int
		lax       bool // junk ends nothing
		agrees    bool
	}{
		{"three knocks", []sequence.Lock{three}, 30, 3, 1, false, true},
		{"two knocks", []sequence.Lock{door(3, 17)}, 100, 2, 1, false, true},
		{"two sequences at a time", []sequence.Lock{three, other}, 30, 3, 2, false, true},
		{"four knocks", []sequence.Lock{four}, 16, 4, 1, false, true},
		{"if any order counted", all, 16, 4, 1, false, false},
		{"if other packets ended nothing", []sequence.Lock{three}, 30, 3, 1, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Logf("run again with -seed=%d", *seed)
			now := time.Now()
			g := &guesser{
				tracker: sequence.NewTracker(tt.locks, reorder, 2*sources*len(tt.locks), now),
				locks:   tt.locks, ports: tt.ports, lax: tt.lax, now: now, random: rand.New(rand.NewPCG(*seed, 24)),
			}
			guessed := 0
			for g.sent < packets {
				from := g.random.IntN(sources)
				for range each {
					if g.guess(from) {
						guessed++
					}
				}
			}
			want := float64(g.sent) / sequence.Guesses(tt.ports, tt.knocks, tt.sequences)
			sigma := math.Sqrt(want)
			if agrees := math.Abs(float64(guessed)-want) < 5*sigma; agrees != tt.agrees {
				t.Errorf("%d were guessed of %d, and %.0f ± %.0f are computed", guessed, g.sent, want, sigma)
			}
		})
	}
}
