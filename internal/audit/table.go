package audit

import (
	"fmt"
	"slices"
	"time"
)

// Kind says what happened.
type Kind string

// The kinds of events. What else is known of a kind is in its row of the table below.
const (
	Knock      Kind = "knock"      // a knock of a door was heard
	Reset      Kind = "reset"      // an attempt is over before it was complete
	Trapped    Kind = "trapped"    // somebody has tried a trap, and cannot knock for a while
	Replayed   Kind = "replayed"   // what opens a door once came once more
	Opened     Kind = "opened"     // a window opened
	Refreshed  Kind = "refreshed"  // an open window got its full length again
	Accepted   Kind = "accepted"   // a new connection was let in
	Refused    Kind = "refused"    // a new connection was turned away
	Closed     Kind = "closed"     // a window was closed before its time was up
	Expired    Kind = "expired"    // a window's time was up
	Command    Kind = "command"    // a command of the rule files was run
	Low        Kind = "low"        // few one-time sequences are left
	Overloaded Kind = "overloaded" // packets were lost before they were heard, or are about to be
	Reloaded   Kind = "reloaded"   // other rules are in force
	Healed     Kind = "healed"     // somebody else has changed the wall, which is put back
	Started    Kind = "started"    // the wall stands, and a daemon is behind it
	Stopped    Kind = "stopped"    // the daemon stops
)

// Priority is how urgent an event is, as syslog has it: the lower, the more urgent.
type Priority int

// The priorities that events have.
const (
	Error   Priority = 3 // something could not be done; every failed event has this one
	Warning Priority = 4 // an administrator must know of it
	Notice  Priority = 5
	Info    Priority = 6
)

// Class says who causes events of a kind, which decides how they are summed up and how
// many of them are remembered.
type Class uint8

// The classes.
const (
	ByHost     Class = iota // the host and its administrators: each event is passed on
	ByGuests                // sources that know the knocks: each is passed on, up to a bound
	ByKnocks                // anybody who sends packets to knock ports: summed up by source
	ByRefusals              // anybody who sends packets to the door: likewise
)

// Metric is the counter that counts events of a kind. Several kinds can share one that
// has labels.
type Metric struct {
	Name   string // without the prefix that all metrics of the program have
	Help   string
	ByDoor bool // it has the label "door"; otherwise the host has one counter
	Labels []string
	Values []string // of the labels, for this kind
}

// Row is what is known of a kind of events. The journal, the metrics, and all that sums
// up, remembers and describes events read it from the table.
type Row struct {
	Kind      Kind
	MessageID string   // of the journal, under which the message catalog explains the kind
	Priority  Priority // of an event that did not fail
	Class     Class
	Metric    *Metric // nil if events of the kind are not counted
	Recounts  bool    // there may be more or fewer doors or open windows after it
	Codes     []Code  // that an event can have
	Failures  []Code  // that a failed event can have; none if events of the kind never fail
	sentence  func(e Event, source string) string
}

// Can reports whether an event of the kind can have a code.
func (r *Row) Can(c Code, failed bool) bool {
	if failed {
		return slices.Contains(r.Failures, c)
	}
	return slices.Contains(r.Codes, c)
}

// MayFail reports whether an event of the kind can be a failed one.
func (r *Row) MayFail() bool { return len(r.Failures) > 0 }

// Table returns the rows of all kinds. They are shared, and not to be changed.
func Table() []*Row {
	rows := make([]*Row, len(table))
	for i := range table {
		rows[i] = &table[i]
	}
	return rows
}

// Row returns the row of a kind, which is empty if there is none.
func (k Kind) Row() *Row {
	if i, ok := places[k]; ok {
		return &table[i]
	}
	return &unknown
}

var unknown = Row{Priority: Notice, sentence: func(e Event, _ string) string { return string(e.Kind) }}

// Priority returns how urgent the event is.
func (e Event) Priority() Priority {
	if e.Failed {
		return Error
	}
	return e.Kind.Row().Priority
}

// Counts are how many events of each kind were counted.
type Counts [len(table)]uint64

// Add counts an event of a kind that is in the table.
func (c *Counts) Add(k Kind) {
	if i, ok := places[k]; ok {
		c[i]++
	}
}

// Of returns how many events of a kind were counted.
func (c *Counts) Of(k Kind) uint64 {
	if i, ok := places[k]; ok {
		return c[i]
	}
	return 0
}

// places are the places of the kinds in the table.
var places = func() map[Kind]int {
	m := make(map[Kind]int, len(table))
	for i := range table {
		m[table[i].Kind] = i
	}
	return m
}()

// summedUp are the kinds that can be summed up, in the order of the table.
var summedUp = func() (kinds []Kind) {
	for i := range table {
		if table[i].Class != ByHost {
			kinds = append(kinds, table[i].Kind)
		}
	}
	return kinds
}()

// VerdictsMetric is the name of the metric that counts verdicts. Not every verdict is an
// event.
const VerdictsMetric = "verdicts_total"

// verdictsMetric counts verdicts that are events.
func verdictsMetric(lane, verdict string) *Metric {
	return &Metric{VerdictsMetric, "Verdicts on new connections' first packets, retransmissions left out.", true,
		[]string{"lane", "verdict"}, []string{lane, verdict}}
}

// windowsMetric counts what becomes of windows.
func windowsMetric(event Kind) *Metric {
	return &Metric{"windows_total", "What became of windows: opened, refreshed, expired, closed.", true, []string{"event"}, []string{string(event)}}
}

// table has a row for each kind. Kinds that one packet can cause stand in the order in
// which it causes them, as events of the same time are passed on in this order.
var table = [...]Row{
	{
		Kind: Reset, MessageID: "21470380bb6b4eb4be9f03221d30ffc5", Priority: Info, Class: ByKnocks,
		Metric: &Metric{Name: "resets_total", Help: "Attempts that were over before they were complete.", ByDoor: true},
		Codes:  []Code{CodeWrongOrder, CodeTooLate, CodeNotAPassword, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s fails to knock at %s", source, e.Door) + after(e)
		},
	},
	{
		Kind: Knock, MessageID: "df796deaca304a11aff218dc7953348f", Priority: Info, Class: ByKnocks,
		Metric: &Metric{Name: "knocks_total", Help: "Knocks that were heard and counted for something.", ByDoor: true},
		Codes:  []Code{CodeSequence, CodeCloseSequence, CodePassword, CodeClosePassword, CodeManySources},
		sentence: func(e Event, source string) string {
			s := fmt.Sprintf("%s knocks at %s", source, e.Door)
			if e.Steps != 0 {
				s += fmt.Sprintf(", %d of %d right", e.Step, e.Steps)
			}
			return s
		},
	},
	{
		Kind: Trapped, MessageID: "745a594ef60d451ea518687b45cdfb1a", Priority: Info, Class: ByKnocks,
		Metric: &Metric{Name: "trapped_total", Help: "Packets to traps, as far as they were logged.", ByDoor: true},
		Codes:  []Code{CodeTrap, CodeSpray, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is trapped at %s", source, e.Door) + after(e)
		},
	},
	{
		Kind: Replayed, MessageID: "e1c9ea981de84206b639949dfc93f11e", Priority: Warning, Class: ByKnocks,
		Metric: &Metric{Name: "replayed_total", Help: "Times that what opens a door once came once more.", ByDoor: true},
		Codes:  []Code{CodeSequence, CodePassword, CodeClosePassword, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s tries at %s what has been used", source, e.Door)
		},
	},
	{
		Kind: Refused, MessageID: "3ea9e666ef234eea80350250807ed352", Priority: Info, Class: ByRefusals,
		Metric:   verdictsMetric("strangers", "refuse"),
		Codes:    []Code{CodeNoWindow, CodeMaxConnections, CodeDuplicate, CodeManySources},
		Failures: []Code{CodeNotOpened, CodeMaxWindows, CodeNotRemembered, CodeMaybeUsed, CodeStillBarred, CodeManySources},
		sentence: func(e Event, source string) string {
			if e.Failed {
				return fmt.Sprintf("%s could not be opened for %s", e.Door, source)
			}
			return fmt.Sprintf("%s is refused at %s", source, e.Door)
		},
	},
	{
		Kind: Opened, MessageID: "fba10c67f0eb4257965a7685ddeee382", Priority: Notice, Class: ByGuests,
		Metric: windowsMetric(Opened), Recounts: true,
		Codes: []Code{CodeSequence, CodePassword, CodeManual, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is open for %s, for %s", e.Door, source, e.Window.Round(time.Millisecond))
		},
	},
	{
		Kind: Refreshed, MessageID: "7fd9b1cbbfe5489e9752c0dea42c9b89", Priority: Info, Class: ByGuests,
		Metric: windowsMetric(Refreshed),
		Codes:  []Code{CodeSequence, CodePassword, CodeManual, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s stays open for %s, for %s from now", e.Door, source, e.Window.Round(time.Millisecond))
		},
	},
	{
		Kind: Accepted, MessageID: "625f23be16cf4e45b7f68c6f81061b54", Priority: Info, Class: ByGuests,
		Metric: verdictsMetric("admitted", "accept"),
		Codes:  []Code{CodeWindow, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is let in at %s", source, e.Door)
		},
	},
	{
		Kind: Closed, MessageID: "da58e032267e4b57a9f25000ccf83c47", Priority: Notice, Class: ByGuests,
		Metric: windowsMetric(Closed), Recounts: true,
		Codes:    []Code{CodeCloseSequence, CodeClosePassword, CodeManual, CodeMaxConnections, CodeNewRules, CodeManySources},
		Failures: []Code{CodeNotClosed, CodeManySources},
		sentence: func(e Event, source string) string {
			if e.Failed {
				return fmt.Sprintf("%s could not be closed for %s", e.Door, source)
			}
			return fmt.Sprintf("%s is closed for %s before its time", e.Door, source)
		},
	},
	{
		Kind: Expired, MessageID: "a5248bf050cf43fcbe6acd9ddb1a5e18", Priority: Info, Class: ByGuests,
		Metric: windowsMetric(Expired), Recounts: true,
		Codes: []Code{CodeTimeout, CodeManySources},
		sentence: func(e Event, source string) string {
			return fmt.Sprintf("%s is closed for %s, whose time is up", e.Door, source)
		},
	},
	{
		Kind: Command, MessageID: "b79d2243eaef41eaaa26940bd3c620ae", Priority: Info,
		Codes:    []Code{CodeSucceeded},
		Failures: []Code{CodeExitCode, CodeNoExitCode, CodeInterrupted, CodeNotRun, CodeNotRemembered, CodeMayRunAgain},
		sentence: func(e Event, source string) string {
			if e.Failed {
				return fmt.Sprintf("A command of %s for %s has failed", e.Door, source)
			}
			return fmt.Sprintf("%s has run a command for %s", e.Door, source)
		},
	},
	{
		Kind: Low, MessageID: "ee96e3a808e44a12b77f636ae3124570", Priority: Warning,
		Codes:    []Code{CodeFewLeft},
		Failures: []Code{CodeNoSequence},
		sentence: func(e Event, _ string) string {
			if e.Failed {
				return "A list of one-time sequences cannot be used"
			}
			return fmt.Sprintf("%s has few one-time sequences left", e.Door)
		},
	},
	{
		Kind: Overloaded, MessageID: "390a739e79bf4b6a9a23bef3000d27a4", Priority: Warning,
		Codes: []Code{CodePacketsLost, CodeLossOver, CodeEventsLost, CodeConntrackFull, CodeConntrackRoom},
		sentence: func(e Event, _ string) string {
			if e.Count > 0 {
				return fmt.Sprintf("%d lost", e.Count)
			}
			return "More comes than this host has room for"
		},
	},
	{
		Kind: Reloaded, MessageID: "8c075f0282ae41f391d5ac22bb3b0833", Priority: Notice, Recounts: true,
		Codes:    []Code{CodeRules, CodeTrial, CodeConfirmed},
		Failures: []Code{CodeNotConfirmed, CodeNotPutBack, CodeNextSequences},
		sentence: func(e Event, _ string) string {
			if e.Failed {
				return "The rules in force are not those that were wanted"
			}
			return "Other rules are in force"
		},
	},
	{
		Kind: Healed, MessageID: "307d692b68f54fadaf5aee75e7bef64d", Priority: Warning,
		Metric:   &Metric{Name: "healed_total", Help: "Times that somebody else's change to the wall was undone."},
		Codes:    []Code{CodePutBack},
		Failures: []Code{CodeNotPutBack},
		sentence: func(Event, string) string { return "Somebody else has changed the wall" },
	},
	{
		Kind: Started, MessageID: "70b8e97b8ea641a1b674fed186bd005c", Priority: Notice,
		Codes:    []Code{CodeRules, CodeTrial},
		sentence: func(Event, string) string { return "The wall stands, and a daemon is behind it" },
	},
	{
		Kind: Stopped, MessageID: "45ed0597cc0d44f8b48a09dabab82e1a", Priority: Notice,
		Codes:    []Code{CodeWallStands, CodeWallRemoved},
		Failures: []Code{CodeWallStands, CodeWallRemoved, CodeWallNotRemoved}, // the daemon may have failed, too
		sentence: func(Event, string) string { return "The daemon stops" },
	},
}

// after says how far an attempt had come.
func after(e Event) string {
	if e.Steps == 0 {
		return ""
	}
	return fmt.Sprintf(" after %d of %d", e.Step, e.Steps)
}
