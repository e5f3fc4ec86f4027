// Package migrate turns what configures other port knockers into rule files:
// knockd's knockd.conf, and the lists of Atomicorp.
//
// What it reads is not trusted. Whatever is in it comes out as quoted text or as a
// comment, and what is not understood for certain is never made into more than
// it was: a command that opens no port which is known by number stays a command.
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

// The bounds of what is read and written.
const (
	MaxSize   = 1 << 20 // bytes of a file that [Import] reads
	maxDoors  = 1000
	maxErrors = 100       // that are told; ten times as many are kept, to choose the first lines from
	maxResult = 256 << 10 // what a rule file may have
)

// Import turns a file into the text of a rule file; name is what to call the
// file. It finds out by itself what kind of file it is. If it cannot be turned,
// the error is an [Errors] with all that is wrong.
func Import(name string, text []byte) ([]byte, error) {
	im := &importer{name: printable.Escape(name)}
	hcl := im.run(text)
	if len(im.errs) == 0 {
		return hcl, nil
	}
	slices.SortStableFunc(im.errs, func(a, b wrong) int { return a.line - b.line })
	var errs Errors
	for _, w := range im.errs[:min(len(im.errs), maxErrors)] {
		errs = append(errs, w.err)
	}
	if len(im.errs) > maxErrors {
		errs = append(errs, fmt.Errorf("%s: and more: only the first %d errors are told", im.name, maxErrors))
	}
	return nil, errs
}

// Errors are what is wrong with a file, each with its line, in their order.
type Errors []error

func (e Errors) Error() string   { return errors.Join(e...).Error() }
func (e Errors) Unwrap() []error { return e }

// importer is one run of Import.
type importer struct {
	name string
	errs []wrong
}

// wrong is what is wrong with a line, or with the whole file if it is 0.
type wrong struct {
	line int
	err  error
}

// fail notes what is wrong in a line, or in the whole file if the line is 0. All
// lines are looked at before the import is given up.
func (im *importer) fail(line int, format string, a ...any) {
	if len(im.errs) == 10*maxErrors {
		return
	}
	where := im.name
	if line > 0 {
		where = fmt.Sprintf("%s line %d", im.name, line)
	}
	im.errs = append(im.errs, wrong{line, fmt.Errorf("%s: "+format, append([]any{where}, a...)...)})
}

func (im *importer) run(text []byte) []byte {
	if len(text) > MaxSize {
		im.fail(0, "it has more than %d KiB, and so is no list of doors", MaxSize>>10)
		return nil
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		im.fail(1+bytes.Count(text[:i], []byte("\n")), "there is a NUL byte, so this is not a text file. Name the file that configures knockd")
		return nil
	}
	lines := significant(string(bytes.TrimPrefix(text, []byte("\ufeff"))))
	if len(lines) == 0 {
		im.fail(0, "there is nothing in it but blank lines and comments. Name the file that configures knockd")
		return nil
	}
	var f *ruleFile
	switch first := lines[0].text; {
	case isAtomicorp(first):
		f = im.atomicorp(lines)
	case strings.HasPrefix(first, "["), strings.Contains(first, "="), strings.EqualFold(first, "UseSyslog"):
		f = im.knockd(lines)
	default:
		im.fail(lines[0].number, "this is neither knockd's configuration, which begins with a [name], "+
			"nor a list such as 22:1001,2002,3003 or 22,2000,SECRET,SECRET")
	}
	if len(im.errs) > 0 {
		return nil
	}
	hcl := f.write()
	if len(hcl) > maxResult {
		im.fail(0, "it becomes a rule file of %d KiB, and %d KiB are read at most: split it, and import the parts", len(hcl)>>10, maxResult>>10)
	}
	return hcl
}

// line is one that says something.
type line struct {
	number int
	text   string // without the space around it
}

// significant returns the lines that are neither blank nor comments.
func significant(text string) []line {
	var lines []line
	number := 0
	for s := range strings.SplitSeq(text, "\n") {
		number++
		if s = strings.TrimSpace(s); s != "" && s[0] != '#' {
			lines = append(lines, line{number, s})
		}
	}
	return lines
}

// tooMany reports, once, a door too many.
func (im *importer) tooMany(doors, line int) bool {
	if doors == maxDoors {
		im.fail(line, "a file may have %d doors at most: split it, and import the parts", maxDoors)
	}
	return doors >= maxDoors
}

// exact reports whether text is the same once it has been in a rule file, which
// is UTF-8 in normal form C.
func exact(s string) bool { return utf8.ValidString(s) && cty.StringVal(s).AsString() == s }
