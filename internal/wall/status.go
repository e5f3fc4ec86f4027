package wall

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// maxAttempts is how many attempts Status lists. It counts all of them.
const maxAttempts = 1000

// Status is the state of the wall. It contains no secrets: it has the number of knocks,
// not the knocks.
type Status struct {
	Table   string         `json:"table"`
	Since   time.Time      `json:"since"`
	Trial   *TrialStatus   `json:"trial,omitempty"`
	Doors   []DoorStatus   `json:"doors"`
	Windows []WindowStatus `json:"windows"` // those that were asked for
	// WindowsNext is where to go on if there are more windows than were asked for; "": nowhere.
	WindowsNext string           `json:"windows_next,omitempty"`
	Attempts    []AttemptStatus  `json:"attempts"`
	Counters    Counters         `json:"counters"`
	Findings    []doctor.Finding `json:"findings"` // conditions that make doors ineffective or weaker
	// FilesDiffer says that the rule files differ from the rules in force.
	FilesDiffer bool `json:"files_differ"`
	// FilesFailed says that the last start or reload could not put them in force, and
	// Unconfirmed that the former rules are in force after a trial of them.
	FilesFailed bool              `json:"files_failed,omitempty"`
	Unconfirmed *UnconfirmedFiles `json:"unconfirmed,omitempty"`
	// Sharing is nil if the rules in force have no share block.
	Sharing *Sharing `json:"sharing,omitempty"`
}

// TrialStatus says that the former state returns unless the trial is confirmed in time.
type TrialStatus struct {
	LeftSeconds float64 `json:"left_seconds"`
}

// DoorStatus is the state of a door, with its events since the daemon started.
type DoorStatus struct {
	Name           string             `json:"name"`
	Bare           bool               `json:"bare,omitempty"` // it guards nothing on this host; the findings say why
	Ports          []packet.PortRange `json:"ports"`
	Knocks         int                `json:"steps"` // number of steps of its sequence; 0: it has none
	OpensBy        []string           `json:"opens_by"`
	SequencesLeft  *int               `json:"sequences_left,omitempty"` // of one-time sequences
	WindowSeconds  float64            `json:"window_seconds"`
	MaxConnections int                `json:"max_connections,omitempty"`
	OpenWindows    int                `json:"open_windows"`
	Shared         bool               `json:"shared,omitempty"` // with other hosts
	Closed         ruleset.Closed     `json:"closed"`
	Counters       DoorCounters       `json:"counters"`
}

// DoorCounters count the events of a door. The kernel's counters count packets, also
// while no daemon runs.
type DoorCounters struct {
	Knocks         uint64 `json:"knocks"` // including one-time passwords
	Resets         uint64 `json:"resets"`
	Trapped        uint64 `json:"trapped"`
	Replayed       uint64 `json:"replayed"`
	Opened         uint64 `json:"opened"`
	Refreshed      uint64 `json:"refreshed"`
	Expired        uint64 `json:"expired"`
	Closed         uint64 `json:"closed"`
	Accepted       uint64 `json:"accepted"`
	Exhausted      uint64 `json:"exhausted"` // refused because max_connections was reached
	Held           uint64 `json:"held"`
	Released       uint64 `json:"released"` // held packets that were released when their window opened
	Refused        uint64 `json:"refused"`
	KernelAdmitted uint64 `json:"kernel_admitted_packets"`
	KernelRefused  uint64 `json:"kernel_refused_packets"`
}

// WindowStatus is one open window.
type WindowStatus struct {
	Door        string        `json:"door"`
	Source      packet.Source `json:"source"`
	Person      string        `json:"person,omitempty"` // who has opened it
	Key         string        `json:"key,omitempty"`    // that person's key
	Origin      string        `json:"origin,omitempty"` // the other host that told of it
	LeftSeconds float64       `json:"left_seconds"`
	Connections int           `json:"connections"`
}

// AttemptStatus is an attempt under way.
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
	Attempts uint64 `json:"attempts"` // in the tracker now, including complete ones
	Evicted  uint64 `json:"evicted"`  // attempts dropped for newer ones
	Lost     uint64 `json:"lost"`     // logged or queued packets that could not be read in time
	Waiting  uint64 `json:"waiting"`  // packets held now
	Healed   uint64 `json:"healed"`   // times that a change by another process was undone
	// Tracked and TrackedLimit are the number of entries in conntrack's table, read some
	// seconds ago, and its maximum, 0 if unknown.
	Tracked      uint64 `json:"tracked"`
	TrackedLimit uint64 `json:"tracked_limit"`
}

// Brief returns how many doors guard something, how many guard nothing as far as is
// known, and how many windows are open.
func (w *Wall) Brief() (guarded, bare, windows int) {
	bareReasons := doctor.BareDoors(w.health.known())
	if f := w.packets.current(); f != nil {
		for _, d := range f.config.Doors {
			if bareReasons[d.Name] != "" {
				bare++
			} else {
				guarded++
			}
		}
	}
	return guarded, bare, w.windows.count()
}

// WindowQuery is which open windows a client wants. The zero value is all of them.
type WindowQuery struct {
	Door    string          // of this door; empty: of all doors
	Sources []packet.Source // that meet any of these; empty: of all sources
	After   WindowPlace     // that come after this place, by door and source; zero: from the first one on
	Limit   int             // at most this number, the first ones by door and source; 0: all
}

// WindowPlace is the place of a window in the order by door and source.
type WindowPlace struct {
	Door   string
	Source packet.Source
}

// IsZero reports whether this is no window's place.
func (p WindowPlace) IsZero() bool { return p == WindowPlace{} }

// String returns the place for [ParseWindowPlace].
func (p WindowPlace) String() string { return p.Door + "/" + p.Source.String() }

// ParseWindowPlace parses a place, such as ssh/192.0.2.7.
func ParseWindowPlace(text string) (p WindowPlace, err error) {
	door, source, ok := strings.Cut(text, "/")
	p.Door = door
	if p.Source, err = packet.ParseSource(source); !ok || err != nil {
		return WindowPlace{}, fmt.Errorf("%q is not a door and a source, such as ssh/192.0.2.7", text)
	}
	return p, nil
}

func (p WindowPlace) compare(to WindowPlace) int {
	return cmp.Or(cmp.Compare(p.Door, to.Door), p.Source.Addr().Compare(to.Source.Addr()),
		cmp.Compare(p.Source.Link, to.Source.Link), cmp.Compare(p.Source.Bits(), to.Source.Bits()))
}

// has reports whether the client wants a window.
func (q *WindowQuery) has(p WindowPlace) bool {
	return (q.Door == "" || q.Door == p.Door) &&
		(q.After.IsZero() || q.After.compare(p) < 0) &&
		(len(q.Sources) == 0 || slices.ContainsFunc(q.Sources, func(wanted packet.Source) bool { return wanted.Meets(p.Source) }))
}

// Status returns the state of the wall, with the open windows that are wanted.
func (w *Wall) Status(wanted WindowQuery) (Status, error) {
	s, _, err := w.measure()
	if err == nil {
		var next WindowPlace
		if s.Windows, next = w.windows.status(wanted); !next.IsZero() {
			s.WindowsNext = next.String()
		}
	}
	return s, err
}

// counted is what the metrics have and the status has not: the event counts of the host,
// those of each door in the order of the status, and the state of the rule files.
type counted struct {
	host  audit.Counts
	doors []audit.Counts
	files RuleFiles
}

// measure returns the state of the wall without its windows, and its event counts.
func (w *Wall) measure() (s Status, events counted, err error) {
	f := w.packets.current()
	if f == nil {
		return Status{}, counted{}, errNotInstalled
	}
	counts, err := w.edges.Kernel.Counts(f.config.Wall.Table)
	if err != nil {
		return Status{}, counted{}, err
	}
	if w.edges.Rules != nil {
		events.files = w.edges.Rules()
	}
	s.FilesDiffer, s.FilesFailed = events.files.Differ, events.files.Failed
	if s.FilesDiffer { // they may have been changed back since
		s.Unconfirmed = events.files.Unconfirmed
	}
	s.Findings = append(append([]doctor.Finding{}, events.files.Findings...), w.Findings()...)
	if w.packets.present() == nil {
		return Status{}, counted{}, errNotInstalled
	}
	w.packets.countLosses()
	events.host = w.table.events()
	open := w.windows.openAt(f)
	usage := w.usage.reading()
	now := time.Now()
	if trial := w.trials.current(); trial != nil {
		s.Trial = &TrialStatus{seconds(trial.until.Sub(now))}
	}
	bareReasons := doctor.BareDoors(s.Findings)
	share := w.packets.config().Written.Share
	if s.Sharing = w.sharing.status(share, now); s.Sharing != nil {
		s.Findings = append(s.Findings, s.Sharing.findings(share)...)
	}

	w.packets.mu.Lock()
	defer w.packets.mu.Unlock()
	f = w.packets.policy
	s.Table, s.Since = f.config.Wall.Table, w.packets.since
	for i := range f.config.Doors {
		d, t := &f.config.Doors[i], f.tally(i)
		events.doors = append(events.doors, t.Counts)
		s.Doors = append(s.Doors, doorStatus(d, t, counts[d.Name], bareReasons[d.Name] != ""))
		s.Doors[i].OpenWindows = open[d.Name]
		s.Doors[i].Shared = f.config.Written.Share.Shares(d.Name)
		if s.Sharing != nil && s.Doors[i].Shared {
			s.Sharing.MaxWindows += 2 * int64(f.config.Wall.MaxWindows) // of IPv4 and IPv6
		}
	}
	s.Attempts = f.attemptsAt(now)
	s.Counters = Counters{
		Attempts: uint64(f.tracker.Len()), Evicted: w.packets.evicted + f.tracker.Evicted(),
		Lost: w.losses.total(), Waiting: uint64(w.packets.sockets.hold.Len()), Healed: events.host.Of(audit.Healed),
		Tracked: uint64(usage.known), TrackedLimit: uint64(usage.room),
	}
	return s, events, nil
}

func doorStatus(d *effective.Door, t *tally, kernel nft.Counts, bare bool) DoorStatus {
	s := DoorStatus{
		Name: d.Name, Bare: bare, Ports: d.Ports, Knocks: d.Steps(), OpensBy: d.OpensBy(),
		WindowSeconds: seconds(d.Window), MaxConnections: d.MaxConnections, Closed: d.Closed,
		Counters: DoorCounters{
			Knocks: t.Of(audit.Knock), Resets: t.Of(audit.Reset), Trapped: t.Of(audit.Trapped), Replayed: t.Of(audit.Replayed),
			Opened: t.Of(audit.Opened), Refreshed: t.Of(audit.Refreshed), Expired: t.Of(audit.Expired), Closed: t.Of(audit.Closed),
			Accepted: t.Of(audit.Accepted), Refused: t.Of(audit.Refused),
			Exhausted: t.exhausted, Held: t.held, Released: t.released,
			KernelAdmitted: kernel.Admitted + t.ahead, KernelRefused: kernel.Refused,
		},
	}
	if stock := d.Stock(); stock != nil {
		s.SequencesLeft = &stock.Left
	}
	return s
}

// attemptsAt returns the attempts under way, up to a limit.
func (f *policy) attemptsAt(now time.Time) []AttemptStatus {
	all := []AttemptStatus{}
	for a := range f.tracker.All(now) {
		if len(all) == maxAttempts {
			break
		}
		l := &f.locks[a.Lock]
		if !f.reportsEnd(l, a.Step) {
			continue
		}
		d := &f.config.Doors[l.door]
		age := now.Sub(a.Started)
		all = append(all, AttemptStatus{d.Name, a.Source, a.Step, len(l.steps), seconds(age), seconds(d.SequenceTimeout - age)})
	}
	return all
}

func (s *WindowStatus) place() WindowPlace { return WindowPlace{s.Door, s.Source} }

func compareWindows(a, b WindowStatus) int { return a.place().compare(b.place()) }

// seconds returns a duration in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
