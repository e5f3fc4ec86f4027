// Package migrate turns the configurations of other port knockers into rule files: knockd's
// knockd.conf, the lists of Atomicorp, and recipes of firewalls in which a client's knocks
// take its address from set to set.
//
// The input is untrusted. Its text appears in the result only in quotes or in comments.
//
// A command of knockd is read in three steps. [readScript] follows the shell: which programs
// run, and when. The reader of each firewall's program says what the program changes, as
// acts. An opening is what the acts of a door open, until when. If a door can do the same, it
// does. If it cannot, or if it is not certain, a comment says why, and what to write.
package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"

	"github.com/knockwall/knockwall/internal/printable"
)

// The limits of input and output.
const (
	MaxSize   = 1 << 20 // bytes of a file that [Import] reads
	maxDoors  = 1000
	maxErrors = 100       // errors that are shown; ten times as many are kept, to show those of the first lines
	maxResult = 256 << 10 // maximum size of a rule file in bytes
)

// File is a file to import.
type File struct {
	Name string // in messages
	Text []byte
}

// MaxFiles is the maximum number of files that [Import] joins.
const MaxFiles = 100

// Import turns the files of one host into the text of one rule file. It detects the kind of
// each file. The error is an [Errors] with all mistakes.
func Import(files ...File) ([]byte, error) {
	var errs Errors
	var parts []*ruleFile
	for i, file := range files {
		im := &importer{name: printable.Escape(file.Name)}
		if i == MaxFiles {
			im.fail(0, "at most %d files can be imported together", MaxFiles)
		} else if i < MaxFiles {
			parts = append(parts, im.read(file.Text))
		}
		slices.SortStableFunc(im.mistakes, func(a, b wrong) int { return a.line - b.line })
		errs = append(errs, im.shown(im.name)...)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	f := merged(parts)
	if len(f.doors) > maxDoors {
		return nil, Errors{fmt.Errorf("%s: the files have %d doors, and a rule file has at most %d: import them one by one", f.from, len(f.doors), maxDoors)}
	}
	joinTwins(f.doors)
	spareKnocks(f.doors)
	hcl := f.write()
	if len(hcl) > maxResult {
		return nil, Errors{fmt.Errorf("%s: the rule file would have %d KiB, and a rule file has at most %d KiB: split the file, and import the parts",
			f.from, len(hcl)>>10, maxResult>>10)}
	}
	return hcl, nil
}

// Errors are the errors in a file, with their line numbers, sorted by line.
type Errors []error

func (e Errors) Error() string   { return errors.Join(e...).Error() }
func (e Errors) Unwrap() []error { return e }

// importer reads one file.
type importer struct {
	name string // in a form that can be printed
	mistakes
}

// mistakes are the errors that an import finds.
type mistakes []wrong

// wrong is an error in a line, or in the whole file if line is 0.
type wrong struct {
	line int
	err  error
}

// add adds an error in a line of a file, or in the whole file if line is 0. It ignores an error
// that is far from being shown.
func (m *mistakes) add(file string, line int, format string, a ...any) {
	if len(*m) == 10*maxErrors {
		return
	}
	if line > 0 {
		file = fmt.Sprintf("%s line %d", file, line)
	}
	*m = append(*m, wrong{line, fmt.Errorf("%s: "+format, append([]any{file}, a...)...)})
}

// shown returns the first mistakes.
func (m mistakes) shown(file string) (errs Errors) {
	for _, w := range m[:min(len(m), maxErrors)] {
		errs = append(errs, w.err)
	}
	if len(m) > maxErrors {
		errs = append(errs, fmt.Errorf("%s: there are more errors: only the first %d are shown", file, maxErrors))
	}
	return errs
}

// lines returns the lines of a file that are neither blank nor comments. It returns false and
// adds an error if the file is none that configures a program.
func (m *mistakes) lines(file string, text []byte) (lines []line, ok bool) {
	if len(text) > MaxSize {
		m.add(file, 0, "the file has more than %d KiB, too many for a list of doors", MaxSize>>10)
		return nil, false
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		m.add(file, 1+bytes.Count(text[:i], []byte("\n")), "there is a NUL byte, so this is not a text file. Name the file that configures the knock daemon")
		return nil, false
	}
	return significant(text), true
}

// fail adds an error in a line, or in the whole file if line is 0. The import goes on, so
// that it finds the errors of all lines.
func (im *importer) fail(line int, format string, a ...any) { im.add(im.name, line, format, a...) }

// read reads a file. It returns nil if the file has errors.
func (im *importer) read(text []byte) *ruleFile {
	lines, ok := im.lines(im.name, text)
	if !ok {
		return nil
	}
	if len(lines) == 0 {
		im.fail(0, "the file has only blank lines and comments. Name the file that configures knockd")
		return nil
	}
	switch first, other := lines[0].text, recipeReader(lines); {
	case isAtomicorp(first):
		return im.atomicorp(lines)
	case isUCI(lines):
		im.fail(lines[0].number, "this is a configuration of OpenWrt (UCI), which cannot be imported. Name the file that the knock daemon reads, such as /etc/knockd.conf")
		return nil
	case other != nil && first[0] != '[':
		return im.recipe(other(lines))
	case isDefaults(lines):
		return im.defaults(lines)
	case strings.HasPrefix(first, "["), strings.Contains(first, "="), strings.EqualFold(first, "UseSyslog"):
		return im.knockd(lines)
	}
	im.fail(lines[0].number, "this is neither knockd's configuration, which begins with a [name], "+
		"nor a list such as 22:1001,2002,3003 or 22,2000,SECRET,SECRET, nor rules of a firewall")
	return nil
}

// isUCI reports whether lines are a configuration of OpenWrt.
func isUCI(lines []line) bool {
	return strings.HasPrefix(lines[0].text, "config ") && slices.ContainsFunc(lines, func(l line) bool {
		return strings.HasPrefix(l.text, "option ") || strings.HasPrefix(l.text, "list ")
	})
}

// line is a line that is neither blank nor a comment.
type line struct {
	number int
	text   string // without leading and trailing space
}

// significant returns the lines that are neither blank nor comments. A byte order mark, which
// editors of Windows write, is none of the text.
func significant(text []byte) []line {
	var lines []line
	number := 0
	for s := range strings.SplitSeq(strings.TrimPrefix(string(text), "\ufeff"), "\n") {
		number++
		if s = strings.TrimSpace(s); s != "" && s[0] != '#' {
			lines = append(lines, line{number, s})
		}
	}
	return lines
}

// tooMany reports whether a file already has the maximum number of doors. It adds an
// error at the first door beyond it.
func (im *importer) tooMany(doors, line int) bool {
	if doors == maxDoors {
		im.fail(line, "a file has at most %d doors: split it, and import the parts", maxDoors)
	}
	return doors >= maxDoors
}

// exact reports whether a rule file can hold the text unchanged: it must be UTF-8 in normal
// form C.
func exact(s string) bool { return utf8.ValidString(s) && cty.StringVal(s).AsString() == s }
