//go:build linux

package daemon

import (
	"io"
	"os"
	"sync"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/systemd"
)

// trail writes the audit trail: to the journal if stderr goes there, or else to stderr. It
// holds the events back until begin is called, so that the lines about what the wall guards
// come first.
type trail struct {
	*audit.Buffer
	begin func()
}

func newTrail(stderr io.Writer) *trail {
	text := audit.Text(stderr)
	if stderr == os.Stderr && systemd.InJournal() {
		text = systemd.Journal(text)
	}
	begun := make(chan struct{})
	return &trail{audit.NewBuffer(heldBack{begun, text}), sync.OnceFunc(func() { close(begun) })}
}

// Close writes the events that wait. After an error these say why, so they are written
// even if begin was not called.
func (t *trail) Close() {
	t.begin()
	t.Buffer.Close()
}

// heldBack passes events on only after until is closed.
type heldBack struct {
	until <-chan struct{}
	audit.Sink
}

func (h heldBack) Record(e audit.Event) {
	<-h.until
	h.Sink.Record(e)
}
