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

// InJournal reports whether stderr goes to the journal, as a service's does.
func InJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return is && err == nil
}

// Journal returns a sink that writes events to the journal, each as an entry with fields.
// It passes events that the journal does not take to another sink.
func Journal(otherwise audit.Sink) audit.Sink { return toJournal{journal.Send, otherwise} }

type toJournal struct {
	send      func(message string, priority journal.Priority, fields map[string]string) error
	otherwise audit.Sink
}

func (j toJournal) Record(e audit.Event) {
	if err := j.send(e.Sentence(), journal.Priority(e.Priority()), fields(e)); err != nil {
		j.otherwise.Record(e)
	}
}

// fields returns the journal fields of an event, those that apply.
func fields(e audit.Event) map[string]string {
	f := map[string]string{
		"SYSLOG_IDENTIFIER": "knockwall",
		"MESSAGE_ID":        e.Kind.Row().MessageID,
		"KNOCKWALL_EVENT":   string(e.Kind),
	}
	set := func(name, value string, applies bool) {
		if applies {
			f["KNOCKWALL_"+name] = value
		}
	}
	set("DOOR", e.Door, e.Door != "")
	set("SOURCE", e.Source.String(), e.Source.IsValid())
	set("PERSON", e.Person, e.Person != "")
	set("KEY", e.Key, e.Key != "")
	set("ORIGIN", e.Origin, e.Origin != "")
	set("PORT", e.Port.String(), e.Port.Number != 0)
	set("STEP", strconv.Itoa(e.Step), e.Steps != 0)
	set("STEPS", strconv.Itoa(e.Steps), e.Steps != 0)
	set("CODE", string(e.Code), e.Code != "")
	set("FAILED", "true", e.Failed)
	set("REASON", e.Reason, e.Reason != "")
	set("WINDOW", strconv.FormatFloat(e.Window.Round(time.Millisecond).Seconds(), 'f', -1, 64), e.Window != 0)
	set("COUNT", strconv.Itoa(e.Count), e.Count != 0)
	return f
}

// Level is the urgency of text on stderr.
type Level journal.Priority

// The levels, as in syslog.
const (
	Error   = Level(journal.PriErr)
	Warning = Level(journal.PriWarning)
)

// At returns a writer that marks every line with a level for the journal (sd-daemon(3)),
// if w is a stderr that goes to the journal. Otherwise it returns w. A writer that wraps
// stderr needs Unwrap.
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
