// Package terminal writes for people: as wide as their terminal, and in its colors.
package terminal

import (
	"io"
	"os"

	"github.com/knockwall/knockwall/ruleset"
)

// DefaultWidth is the number of columns to fill where there is no terminal.
const DefaultWidth = 78

// minWidth is the smallest width that Width returns.
const minWidth = 40

// Width returns the number of columns to fill, and whether w is a terminal. A writer that
// wraps a terminal needs the method Unwrap() io.Writer.
func Width(w io.Writer) (columns uint, terminal bool) {
	if u, ok := w.(interface{ Unwrap() io.Writer }); ok {
		w = u.Unwrap()
	}
	f, ok := w.(*os.File)
	if !ok {
		return DefaultWidth, false
	}
	columns, terminal = columnsOf(f)
	if !terminal {
		return DefaultWidth, false
	}
	return max(columns, minWidth), true
}

// WriteDiagnostics writes the errors and warnings of rule files. At a terminal they have
// colors, unless NO_COLOR is set (no-color.org).
func WriteDiagnostics(w io.Writer, loaded *ruleset.Loaded) error {
	width, terminal := Width(w)
	return loaded.WriteText(w, width, terminal && os.Getenv("NO_COLOR") == "")
}
