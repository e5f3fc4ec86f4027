package wall

import (
	"errors"
	"iter"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// The kernel has the windows, but listing them takes it longer than in proportion: more than
// a minute for a million. So a daemon that stops keeps a copy for the next one, with the
// generation of the kernel's tables. If that is still the same, no table has changed since,
// and the kernel need not be asked.

// WindowStore keeps a copy of the windows of a table while no daemon runs.
type WindowStore interface {
	// Save replaces the copy.
	Save(table string, generation uint32, windows iter.Seq[KeptWindow]) error
	// Load calls take with each window of the copy, if it is of that table, of this boot, and
	// of the generation that isCurrent accepts. It reports whether it is.
	Load(table string, isCurrent func(generation uint32) bool, take func(KeptWindow)) (bool, error)
	// Forget deletes the copy.
	Forget() error
}

// KeptWindow is a window in the copy.
type KeptWindow struct {
	Door   string
	Source packet.Source
	Opener string // the text of a [method.Opener]
	Left   time.Duration
	Age    time.Duration // since it was opened or refreshed
}

// errDisturbed says why there is no copy.
var errDisturbed = errors.New("another process has changed the table meanwhile")

// keep saves a copy of the windows. It is called with change held, after the last change of
// the table. It saves none if the table may have other windows.
func (ws *windows) keep() error {
	if ws.edges.Kept == nil {
		return nil
	}
	if ws.table.disturbed {
		return errDisturbed
	}
	generation, err := ws.edges.Kernel.Generation()
	if err != nil {
		return err
	}
	return ws.edges.Kept.Save(ws.table.table.Name, generation, func(yield func(KeptWindow) bool) {
		inChunks(ws, func(door string, win sequence.Window, left time.Duration) KeptWindow {
			return KeptWindow{door, win.Source(), win.Opener(), left, time.Since(win.Granted())}
		}, yield)
	})
}

// adoptKept records the windows of the copy, and reports whether these are all that are in the
// table.
func (ws *windows) adoptKept(table string, f *policy) bool {
	if ws.edges.Kept == nil {
		return false
	}
	isCurrent := func(generation uint32) bool { return ws.edges.Kernel.IsUnchangedSince(generation, table) }
	all, err := ws.edges.Kept.Load(table, isCurrent, func(w KeptWindow) { ws.adopt(w, f) })
	return all && err == nil // without the copy, the kernel is asked
}
