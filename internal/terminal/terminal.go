// Package terminal writes for people: as wide as their terminal, and in its colors.
package terminal

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
)

// DefaultWidth is the number of columns to fill where there is no terminal.
const DefaultWidth = 78

// minWidth is the smallest width that Width returns.
const minWidth = 40

// Width returns the number of columns to fill, and whether w is a terminal. The environment
// variable COLUMNS can ask for fewer columns than there are. A writer that wraps a terminal
// needs the method Unwrap() io.Writer.
func Width(w io.Writer) (columns uint, terminal bool) {
	columns, _, terminal = size(w)
	if columns == 0 { // no terminal, or one of an unknown size
		columns = DefaultWidth
	}
	if wanted, err := strconv.ParseUint(os.Getenv("COLUMNS"), 10, 16); err == nil && wanted > 0 {
		columns = min(columns, uint(wanted))
	}
	return max(columns, minWidth), terminal
}

// IsUTF8 reports whether the user's locale is one of UTF-8. Other terminals show only ASCII.
func IsUTF8() bool {
	locale := cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG"))
	_, charset, _ := strings.Cut(strings.ToUpper(locale), ".")
	return strings.HasPrefix(charset, "UTF-8") || strings.HasPrefix(charset, "UTF8")
}

// Screen returns the size of the terminal that w is. It is zero if w is no terminal, or if its
// size is unknown.
func Screen(w io.Writer) (columns, rows uint) {
	columns, rows, _ = size(w)
	return columns, rows
}

func size(w io.Writer) (columns, rows uint, terminal bool) {
	if u, ok := w.(interface{ Unwrap() io.Writer }); ok {
		w = u.Unwrap()
	}
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0, false
	}
	return sizeOf(f)
}

// WriteParagraph writes a paragraph, as wide as the terminal is.
func WriteParagraph(w io.Writer, text string) {
	columns, _ := Width(w)
	fmt.Fprintln(w, strings.Join(printable.Wrap(text, int(columns)), "\n"))
}

// WriteWrapped writes a paragraph, as wide as the terminal is. All lines but the first are
// indented.
func WriteWrapped(w io.Writer, text string) {
	const indent = "  "
	columns, _ := Width(w)
	lines := printable.Wrap(text, int(columns)-len(indent))
	fmt.Fprintln(w, strings.Join(lines, "\n"+indent))
}

// WriteDiagnostics writes the errors and warnings of rule files. At a terminal they have
// colors, unless NO_COLOR is set (no-color.org).
func WriteDiagnostics(w io.Writer, loaded *ruleset.Loaded) error {
	width, terminal := Width(w)
	return loaded.WriteText(w, width, terminal && os.Getenv("NO_COLOR") == "")
}
