package systemd

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/knockwall/knockwall/internal/audit"
)

// InJournal reports whether stderr goes to the journal, as that of a service does.
func InJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return is && err == nil
}

// message is what the journal is told of a kind of event: the MESSAGE_ID, under
// which knockwall.catalog explains it, and how much an admin must know of it.
type message struct {
	id       string
	priority journal.Priority
}

var messages = map[audit.Kind]message{
	audit.Knock:      {"df796deaca304a11aff218dc7953348f", journal.PriInfo},
	audit.Reset:      {"21470380bb6b4eb4be9f03221d30ffc5", journal.PriInfo},
	audit.Trapped:    {"745a594ef60d451ea518687b45cdfb1a", journal.PriInfo},
	audit.Replayed:   {"e1c9ea981de84206b639949dfc93f11e", journal.PriWarning},
	audit.Opened:     {"fba10c67f0eb4257965a7685ddeee382", journal.PriNotice},
	audit.Refreshed:  {"7fd9b1cbbfe5489e9752c0dea42c9b89", journal.PriInfo},
	audit.Accepted:   {"625f23be16cf4e45b7f68c6f81061b54", journal.PriInfo},
	audit.Refused:    {"3ea9e666ef234eea80350250807ed352", journal.PriInfo},
	audit.Closed:     {"da58e032267e4b57a9f25000ccf83c47", journal.PriNotice},
	audit.Expired:    {"a5248bf050cf43fcbe6acd9ddb1a5e18", journal.PriInfo},
	audit.Command:    {"b79d2243eaef41eaaa26940bd3c620ae", journal.PriInfo},
	audit.Low:        {"ee96e3a808e44a12b77f636ae3124570", journal.PriWarning},
	audit.Overloaded: {"390a739e79bf4b6a9a23bef3000d27a4", journal.PriWarning},
	audit.Reloaded:   {"8c075f0282ae41f391d5ac22bb3b0833", journal.PriNotice},
	audit.Healed:     {"307d692b68f54fadaf5aee75e7bef64d", journal.PriWarning},
	audit.Started:    {"70b8e97b8ea641a1b674fed186bd005c", journal.PriNotice},
	audit.Stopped:    {"45ed0597cc0d44f8b48a09dabab82e1a", journal.PriNotice},
}

// Journal returns a sink that writes events to the journal, each as an entry with
// fields; and to another sink what the journal does not take.
func Journal(otherwise audit.Sink) audit.Sink { return toJournal{otherwise} }

type toJournal struct{ otherwise audit.Sink }

func (j toJournal) Record(e audit.Event) {
	priority := messages[e.Kind].priority
	if e.Failed {
		priority = journal.PriErr
	}
	if err := journal.Send(e.Sentence(), priority, fields(e)); err != nil {
		j.otherwise.Record(e)
	}
}

// fields returns the fields of an entry, those that apply.
func fields(e audit.Event) map[string]string {
	f := map[string]string{
		"SYSLOG_IDENTIFIER": "knockwall",
		"MESSAGE_ID":        messages[e.Kind].id,
		"KNOCKWALL_EVENT":   string(e.Kind),
	}
	set := func(name, value string, applies bool) {
		if applies {
			f["KNOCKWALL_"+name] = value
		}
	}
	set("DOOR", e.Door, e.Door != "")
	set("SOURCE", e.Source.String(), e.Source.IsValid())
	set("PORT", e.Port.String(), e.Port.Number != 0)
	set("STEP", strconv.Itoa(e.Step), e.Steps != 0)
	set("STEPS", strconv.Itoa(e.Steps), e.Steps != 0)
	set("REASON", e.Reason, e.Reason != "")
	set("WINDOW", strconv.FormatFloat(e.Window.Round(time.Millisecond).Seconds(), 'f', -1, 64), e.Window != 0)
	set("COUNT", strconv.Itoa(e.Count), e.Count != 0)
	return f
}

// Level says how much an admin must know of what is written to stderr.
type Level journal.Priority

// The levels, as syslog has them.
const (
	Error   = Level(journal.PriErr)
	Warning = Level(journal.PriWarning)
)

// At returns w, or, if that is a stderr which goes to the journal, what marks
// every line for it with a level (sd-daemon(3)). A writer before stderr unwraps to it.
func At(w io.Writer, l Level) io.Writer {
	last := w
	if before, ok := w.(interface{ Unwrap() io.Writer }); ok {
		last = before.Unwrap()
	}
	if last != os.Stderr || !InJournal() {
		return w
	}
	return leveled{w, fmt.Appendf(nil, "<%d>", l)}
}

type leveled struct {
	w    io.Writer
	mark []byte
}

// Write writes whole lines.
func (l leveled) Write(b []byte) (int, error) {
	var marked []byte
	for line := range bytes.Lines(b) {
		marked = append(append(marked, l.mark...), line...)
	}
	if _, err := l.w.Write(marked); err != nil {
		return 0, err
	}
	return len(b), nil
}
