package wall

import (
	"cmp"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// maxAttempts is how many attempts a Status lists; it counts all of them.
const maxAttempts = 1000

// Status is what a wall knows of itself. Secrets are not in it: not what the
// knocks are, only how many.
type Status struct {
	Table    string          `json:"table"`
	Since    time.Time       `json:"since"`
	Doors    []DoorStatus    `json:"doors"`
	Windows  []WindowStatus  `json:"windows"`
	Attempts []AttemptStatus `json:"attempts"`
	Counters Counters        `json:"counters"`
}

// DoorStatus is one door, and what happened there since the daemon started.
type DoorStatus struct {
	Name           string             `json:"name"`
	Ports          []packet.PortRange `json:"ports"`
	Knocks         int                `json:"steps"` // of its sequence
	WindowSeconds  float64            `json:"window_seconds"`
	MaxConnections int                `json:"max_connections,omitempty"`
	Closed         ruleset.Closed     `json:"closed"`
	Counters       DoorCounters       `json:"counters"`
}

// DoorCounters count events of one door. Those of the kernel are packets, and
// count while no daemon runs, too; the table's replacement sets them to zero.
type DoorCounters struct {
	Knocks         uint64 `json:"knocks"`
	Resets         uint64 `json:"resets"`
	Opened         uint64 `json:"opened"`
	Accepted       uint64 `json:"accepted"`
	Held           uint64 `json:"held"`
	Refused        uint64 `json:"refused"`
	KernelAdmitted uint64 `json:"kernel_admitted_packets"`
	KernelRefused  uint64 `json:"kernel_refused_packets"`
}

// WindowStatus is one open window.
type WindowStatus struct {
	Door        string        `json:"door"`
	Source      packet.Source `json:"source"`
	LeftSeconds float64       `json:"left_seconds"`
	Connections int           `json:"connections"`
}

// AttemptStatus is one attempt that is under way.
type AttemptStatus struct {
	Door        string        `json:"door"`
	Source      packet.Source `json:"source"`
	Step        int           `json:"step"`
	Steps       int           `json:"steps"`
	AgeSeconds  float64       `json:"age_seconds"`
	LeftSeconds float64       `json:"left_seconds"`
}

// Counters count what belongs to no single door.
type Counters struct {
	Attempts uint64 `json:"attempts"` // remembered now, complete ones among them
	Evicted  uint64 `json:"evicted"`  // attempts that gave way to newer ones
	Lost     uint64 `json:"lost"`     // packets that could not be read in time
	Waiting  uint64 `json:"waiting"`  // strangers' packets that are held now
}

// Status returns the state of the wall.
func (w *Wall) Status() (Status, error) {
	w.mu.Lock()
	f := w.front
	w.mu.Unlock()
	counts, err := w.edges.Kernel.Counts(f.config.Wall.Table)
	if err != nil {
		return Status{}, err
	}

	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	f = w.front
	s := Status{
		Table:    f.config.Wall.Table,
		Since:    w.since,
		Windows:  []WindowStatus{},
		Attempts: []AttemptStatus{},
		Counters: Counters{
			Attempts: uint64(f.tracker.Len()), Evicted: f.tracker.Evicted(),
			Lost: w.lost, Waiting: uint64(f.hold.Len()),
		},
	}
	for i, d := range f.config.Doors {
		t, k := f.tallies[i], counts[d.Name]
		s.Doors = append(s.Doors, DoorStatus{
			Name: d.Name, Ports: d.Ports, Knocks: len(d.Sequence),
			WindowSeconds: seconds(d.Window), MaxConnections: d.MaxConnections, Closed: d.Closed,
			Counters: DoorCounters{
				Knocks: t.knocks, Resets: t.resets, Opened: t.opened,
				Accepted: t.accepted, Held: t.held, Refused: t.refused,
				KernelAdmitted: k.Admitted, KernelRefused: k.Refused,
			},
		})
	}
	for win := range w.windows.All() {
		if left := win.Until.Sub(now); left > 0 && !win.Spent() {
			s.Windows = append(s.Windows, WindowStatus{w.doors[win.Door], win.Source, seconds(left), win.Connections})
		}
	}
	slices.SortFunc(s.Windows, func(a, b WindowStatus) int {
		return cmp.Or(cmp.Compare(a.Door, b.Door), a.Source.Addr().Compare(b.Source.Addr()))
	})
	for a := range f.tracker.All(now) {
		if len(s.Attempts) == maxAttempts {
			break
		}
		d := &f.config.Doors[a.Door]
		age := now.Sub(a.Started)
		s.Attempts = append(s.Attempts, AttemptStatus{d.Name, a.Source, a.Step, len(d.Sequence), seconds(age), seconds(d.SequenceTimeout - age)})
	}
	return s, nil
}

// seconds returns a duration in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
