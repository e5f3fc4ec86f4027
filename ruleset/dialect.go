package ruleset

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/ownership"
)

// Dialect is a kind of file that is written as rule files are, with the same values,
// secrets, limits and diagnostics, but with another kind of block at the top. Its functions
// have internal types, as only this program has such files.
type Dialect struct{ words *words }

// NewDialect returns the dialect of files with one kind of block. file is what such a file
// is called, as in "a hosts file". fields is a struct with hcl tags: the attributes and
// blocks within the block. kinds are the methods among these blocks; diagnostics hide their
// values, and show all others.
func NewDialect(file, block string, fields any, kinds ...*method.Kind) Dialect {
	return Dialect{newWords(file, map[string]bool{block: true}, namesOf(impliedBy(fields)), nil, kinds)}
}

// Read reads a file that exists, and returns its blocks. It reports errors outside of them,
// and that other users can change the file.
func (d Dialect) Read(path string) (*Loaded, hcl.Blocks) {
	l := newLoaded(d.words, path, daemon)
	body := l.syntax(hclparse.NewParser(), path)
	if body == nil {
		return l, nil
	}
	if err := ownership.Check(path, ownership.File); err != nil {
		l.fail("A file that others can change", sentence(err), nil)
	}
	for _, a := range body.Attributes {
		l.fail("Unsupported argument", "Write it inside a block, between its braces.", &a.NameRange)
	}
	var blocks hcl.Blocks
	for _, b := range body.Blocks {
		if !d.words.top[b.Type] {
			l.fail("Unsupported block type", "There is no such block in "+d.words.file+".", &b.TypeRange)
			continue
		}
		blocks = append(blocks, b.AsHCLBlock())
	}
	return l, blocks
}

// Reader returns a reader of the values in the file. What it reports is added to the
// diagnostics of l.
func (l *Loaded) Reader() method.Reader { return reading{l} }

// Sort puts the diagnostics in the order of the file.
func (l *Loaded) Sort() { slices.SortStableFunc(l.Diagnostics, inOrder) }
