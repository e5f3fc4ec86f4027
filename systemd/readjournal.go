package systemd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// ErrNoJournal means that this system has no program to read a journal with.
var ErrNoJournal = errors.New("journalctl is not installed")

// maxComplaint is how much of journalctl's stderr is kept, in bytes.
const maxComplaint = 4096

// entryFields are the fields that ReadJournal uses.
const entryFields = "KNOCKWALL_EVENT,KNOCKWALL_DOOR,KNOCKWALL_SOURCE,KNOCKWALL_PERSON,KNOCKWALL_KEY,KNOCKWALL_PORT,KNOCKWALL_CODE," +
	"KNOCKWALL_FAILED,KNOCKWALL_COUNT"

// ReadJournal calls each with the events that the unit has written to the journal since a
// time, oldest first. An event has the fields that concern who, where, what and how often.
// journald itself records the unit of an entry, so that no other service can make one up.
func ReadJournal(ctx context.Context, unit string, since time.Time, each func(audit.Event) error) error {
	path, err := exec.LookPath("journalctl")
	if err != nil {
		return ErrNoJournal
	}
	cmd := exec.CommandContext(ctx, path, "--quiet", "--no-pager", "--output=json", "--output-fields="+entryFields,
		"--since=@"+strconv.FormatInt(since.Unix(), 10), "_SYSTEMD_UNIT="+unit)
	complaint := &limitedBuffer{}
	cmd.Stderr = complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("reading the journal: %w", err)
	}
	read := readEntries(out, each)
	if read != nil {
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	if read != nil {
		return read
	}
	if err != nil {
		return fmt.Errorf("reading the journal: %w: %s", err, strings.TrimSpace(complaint.b.String()))
	}
	return nil
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct{ b bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), maxComplaint-l.b.Len())])
	return len(p), nil
}

// readEntry is an entry of the journal as journalctl writes it.
type readEntry struct {
	Time   text `json:"__REALTIME_TIMESTAMP"`
	Event  text `json:"KNOCKWALL_EVENT"`
	Door   text `json:"KNOCKWALL_DOOR"`
	Source text `json:"KNOCKWALL_SOURCE"`
	Person text `json:"KNOCKWALL_PERSON"`
	Key    text `json:"KNOCKWALL_KEY"`
	Port   text `json:"KNOCKWALL_PORT"`
	Code   text `json:"KNOCKWALL_CODE"`
	Failed text `json:"KNOCKWALL_FAILED"`
	Count  text `json:"KNOCKWALL_COUNT"`
}

// text is the value of a field. It is empty if the value is no text or is too long:
// journalctl writes null or a list then.
type text string

// UnmarshalJSON accepts any value.
func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = ""
	}
	*t = text(s)
	return nil
}

// readEntries calls each with the events of entries.
func readEntries(r io.Reader, each func(audit.Event) error) error {
	for decoder := json.NewDecoder(r); ; {
		var in readEntry
		switch err := decoder.Decode(&in); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the journal: %w", err)
		}
		if e, ok := in.event(); ok {
			if err := each(e); err != nil {
				return err
			}
		}
	}
}

// event returns the event of an entry, if the entry is one. Most other entries of the unit
// are lines of its stderr.
func (in *readEntry) event() (e audit.Event, ok bool) {
	microseconds, err := strconv.ParseInt(string(in.Time), 10, 64)
	if in.Event == "" || err != nil {
		return e, false
	}
	e = audit.Event{
		Time: time.UnixMicro(microseconds), Kind: audit.Kind(in.Event), Door: string(in.Door), Person: string(in.Person), Key: string(in.Key),
		Code: audit.Code(in.Code), Failed: in.Failed == "true",
	}
	if e.Source, err = packet.ParseSource(string(in.Source)); err != nil {
		// The interface of a link-local source may be gone.
		address, _, _ := strings.Cut(string(in.Source), "%")
		e.Source, _ = packet.ParseSource(address)
	}
	e.Port, _ = packet.ParsePort(string(in.Port))
	e.Count, _ = strconv.Atoi(string(in.Count))
	return e, true
}
