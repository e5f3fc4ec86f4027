package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/knockwall/knockwall/internal/ownership"
)

// The limits of rule files and diagnostics. Rule files are written by hand, and so are
// small.
const (
	maxFileSize    = 256 << 10 // bytes
	maxAllSizes    = 2 << 20   // bytes of all files
	maxEntries     = 10000     // of a folder, rule files or not
	maxFiles       = 1000
	maxNesting     = 1000
	maxDiagnostics = 1000
)

// Loaded is the result of Load.
type Loaded struct {
	Config      *Config // nil if there are errors
	Diagnostics hcl.Diagnostics

	words  *words // of this kind of file
	files  map[string]*hcl.File
	shown  map[string][]byte       // the text of files with stars in place of possible secrets
	named  map[string]bool         // the files in shown that rule files name: they have no secrets
	broken map[string]map[int]bool // the files with syntax errors, and the lines of these errors
	// misspelt are the blocks with a name that resembles the one of an argument or a block that
	// they lack.
	misspelt map[hcl.Range]bool
	doorsAt  map[string]hcl.Range // the names of the doors

	size     int // of all files, in bytes
	identity identity
	path     string
	reader   reader
}

// reader is the purpose for which rule files are read. It decides which missing secrets and
// lists are errors.
type reader uint8

const (
	daemon     reader = iota // every missing secret or list is an error
	rehearsing               // missing credentials are warnings: only the service has them
	reviewer                 // missing lists are warnings, too: they may be made later
	makeshift                // every missing secret or list is a warning
)

// Load reads the rule files at path as one configuration. path is one file, or a folder
// whose *.hcl files are read in lexical order. Load reports all errors, not only the first.
func Load(path string) *Loaded { return load(path, path, daemon) }

// Review reads rule files as [Load] does, for a process that is not the daemon. systemd
// gives credentials to the daemon only, and lists may be made later. A missing credential
// or list is a warning, and is missing from the configuration.
func Review(path string) *Loaded { return load(path, path, reviewer) }

// Rehearse reads rule files as [Load] does, for a process that has all that the daemon has
// except its credentials. A missing credential is a warning.
func Rehearse(path string) *Loaded { return load(path, path, rehearsing) }

func newLoaded(w *words, path string, by reader) *Loaded {
	return &Loaded{words: w, files: map[string]*hcl.File{}, shown: map[string][]byte{}, named: map[string]bool{}, broken: map[string]map[int]bool{}, misspelt: map[hcl.Range]bool{}, path: path, reader: by}
}

// load reads the rule files at path, which may be a copy of those at origin.
func load(path, origin string, by reader) *Loaded {
	l := newLoaded(ruleWords, origin, by)
	raw, others := l.readFiles(hclparse.NewParser(), path)
	if raw == nil {
		return l
	}
	config := l.check(raw)
	if !l.Diagnostics.HasErrors() {
		l.Config = config
		l.adviseUnread(path, others)
	}
	l.dropRepeated()
	l.Sort()
	l.shorten()
	return l
}

// readFiles reads and decodes the rule files at path, and returns the names of the files
// beside them. It returns nil if there are none.
func (l *Loaded) readFiles(parser *hclparse.Parser, path string) (*rawConfig, []string) {
	names, others, err := entries(path)
	if err != nil {
		l.fail("Cannot read the rule files", forbidden(err, "r").Error(), nil)
		return nil, nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		l.owned(path, ownership.Folder)
	}
	var raw rawConfig
	for _, name := range names {
		if l.size > maxAllSizes {
			l.fail("Too much to read", fmt.Sprintf("The rule files have more than %d MiB in total. The files from %s on are not read.", maxAllSizes>>20, name), nil)
			break
		}
		// Reading a pipe in a folder would block for ever. A pipe that is itself the path,
		// such as a shell's <(…), is read.
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() && name != path {
			l.fail("Cannot read a rule file", name+" is not a regular file. Remove it, or give it another name.", nil)
			continue
		}
		l.owned(name, ownership.File)
		l.parse(parser, name, &raw)
	}
	return &raw, others
}

// Errors returns a copy without the warnings.
func (l *Loaded) Errors() *Loaded {
	errors := *l
	errors.Diagnostics = slices.DeleteFunc(slices.Clone(l.Diagnostics), func(d *hcl.Diagnostic) bool { return d.Severity != hcl.DiagError })
	return &errors
}

// dropRepeated drops diagnostics that say the same of the same place in a file that several
// doors name.
func (l *Loaded) dropRepeated() {
	seen := map[string]bool{}
	l.Diagnostics = slices.DeleteFunc(l.Diagnostics, func(d *hcl.Diagnostic) bool {
		if d.Subject == nil || !l.named[d.Subject.Filename] {
			return false
		}
		text := d.Error() // with the place
		repeated := seen[text]
		seen[text] = true
		return repeated
	})
}

// shorten keeps the first maxDiagnostics diagnostics, and says how many it left out.
func (l *Loaded) shorten() {
	if n := len(l.Diagnostics) - maxDiagnostics; n > 0 {
		l.Diagnostics = append(l.Diagnostics[:maxDiagnostics:maxDiagnostics], &hcl.Diagnostic{
			Severity: l.Diagnostics[maxDiagnostics].Severity,
			Summary:  fmt.Sprintf("And %d more", n),
			Detail:   fmt.Sprintf("Only the first %d are shown.", maxDiagnostics),
		})
	}
}

// inOrder compares diagnostics by their places. Those without a place come first.
func inOrder(a, b *hcl.Diagnostic) int {
	var none hcl.Range
	p, q := cmp.Or(a.Subject, &none), cmp.Or(b.Subject, &none)
	return cmp.Or(cmp.Compare(p.Filename, q.Filename), cmp.Compare(p.Start.Byte, q.Start.Byte))
}

// entries returns the paths of the rule files, and of what else lies in their folder. It
// leaves hidden files out.
func entries(path string) (ruleFiles, others []string, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s does not exist. Make it, or name another folder or file with --config", path)
	}
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil, nil
	}
	folder, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer folder.Close()
	all, err := folder.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if len(all) > maxEntries {
		return nil, nil, fmt.Errorf("%s has more than %d entries, too many for a folder of rule files: name another with --config", path, maxEntries)
	}
	for _, e := range all {
		name := filepath.Join(path, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case strings.HasSuffix(name, ".hcl"):
			ruleFiles = append(ruleFiles, name)
		default:
			others = append(others, name)
		}
	}
	if len(ruleFiles) > maxFiles {
		return nil, nil, fmt.Errorf("%s has %d rule files; at most %d are read", path, len(ruleFiles), maxFiles)
	}
	slices.Sort(ruleFiles)
	slices.Sort(others)
	return ruleFiles, others, nil
}

func (l *Loaded) parse(parser *hclparse.Parser, name string, raw *rawConfig) {
	body := l.syntax(parser, name)
	if body == nil {
		return
	}
	var part rawConfig
	diags := gohcl.DecodeBody(body, nil, &part)
	l.foreign(diags)
	schema := doorSchema()
	for i := range part.Doors {
		l.decodeDoor(&part.Doors[i], schema)
	}
	raw.Walls = append(raw.Walls, part.Walls...)
	raw.Doors = append(raw.Doors, part.Doors...)
	raw.Shares = append(raw.Shares, part.Shares...)
}

// syntax parses a file as HCL. It returns nil if nothing of the file can be used.
func (l *Loaded) syntax(parser *hclparse.Parser, name string) *hclsyntax.Body {
	text, err := readBounded(name)
	l.size += len(text)
	if err != nil {
		l.fail("Cannot read "+l.words.file, forbidden(err, "r").Error(), nil)
		return nil
	}
	l.files[name] = &hcl.File{Bytes: text}
	if at := tooDeep(text, name); at != nil {
		l.fail("Nested too deeply", fmt.Sprintf("At most %d brackets and operators may be nested.", maxNesting), at)
		return nil
	}
	file, diags := parser.ParseHCL(text, name)
	for _, d := range diags {
		if l.broken[name] == nil {
			l.broken[name] = map[int]bool{}
		}
		l.broken[name][d.Subject.Start.Line] = true
	}
	l.foreign(diags)
	if file == nil {
		return nil
	}
	l.files[name] = file
	body, _ := file.Body.(*hclsyntax.Body)
	return body
}

// owned reports an error if other users can change the file or folder at path.
func (l *Loaded) owned(path string, kind ownership.Kind) {
	if err := ownership.Check(path, kind); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.fail("Rule files that others can change", sentence(err), nil)
	}
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(text) > maxFileSize {
		err = fmt.Errorf("%s is too large: a rule file has at most %d KiB", name, maxFileSize>>10)
	}
	return text, err
}

// tooDeep returns the place where brackets and operators may nest deeper than maxNesting,
// or nil. The parser recurses into them, and could run out of stack. The tokens do not
// show where the operand of an operator ends, so every operator counts as one level.
func tooDeep(text []byte, name string) *hcl.Range {
	tokens, _ := hclsyntax.LexConfig(text, name, hcl.InitialPos)
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl,
			hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion, hclsyntax.TokenStar:
			depth++
		case hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCBrace, hclsyntax.TokenTemplateSeqEnd:
			depth = max(depth-1, 0)
		}
		if depth > maxNesting {
			return &t.Range
		}
	}
	return nil
}

// plainer has details for HCL's diagnostics, by summary, in the words of rule files.
var plainer = map[string]string{
	"Missing name for door":          `Write a name, as in door "ssh" { … }.`,
	"Extraneous label for door":      `A door has one name, as in door "ssh" { … }.`,
	"Missing person for fwknop":      `Write a person's name, as in fwknop "alice" { … }.`,
	"Extraneous label for fwknop":    `A block is for one person, as in fwknop "alice" { … }.`,
	"Missing newline after argument": `The value ends here, but the line goes on. Write text in quotes: "30s".`,
	"Missing item separator":         `Write a comma between two values, and text in quotes: ["192.0.2.1", 22].`,
	"Invalid number literal":         `Write text in quotes, addresses too: "192.0.2.1".`,
	"Invalid multi-line string":      "The quote that ends the text is missing on this line.",
	"Unterminated template string":   "The quote that ends the text is missing.",
	"Unterminated list":              "The ] that ends the list is missing.",
}

// foreign adds the diagnostics of HCL, without secrets.
func (l *Loaded) foreign(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Subject != nil {
			shown := l.shownText(d.Subject.Filename)
			d.Summary, d.Detail = l.words.withoutSecrets(d.Summary, shown), l.words.withoutSecrets(d.Detail, shown)
		}
		d.Summary = strings.Replace(d.Summary, "tuple constructor expression", "list", 1)
		if detail, ok := plainer[d.Summary]; ok {
			d.Detail = detail
		}
		// HCL proposes no name that the block has already.
		if strings.HasPrefix(d.Summary, "Unsupported ") && strings.Contains(d.Detail, "Did you mean") {
			l.misspelt[l.blockAround(*d.Subject)] = true
		}
	}
	l.Diagnostics = append(l.Diagnostics, diags...)
}

// blockAround returns the definition of the innermost block in whose braces a place is.
func (l *Loaded) blockAround(at hcl.Range) (definition hcl.Range) {
	for _, b := range l.files[at.Filename].BlocksAtPos(at.Start) {
		if !b.DefRange.Overlaps(at) {
			definition = b.DefRange
		}
	}
	return definition
}

// shownText returns the text of a rule file with stars in place of possible secrets.
func (l *Loaded) shownText(name string) []byte {
	if file := l.files[name]; file != nil && l.shown[name] == nil {
		l.shown[name] = l.words.hide(file.Bytes)
	}
	return l.shown[name]
}

// fail reports an error, unless its line has a syntax error that was reported before.
func (l *Loaded) fail(summary, detail string, at *hcl.Range) {
	if at != nil && l.broken[at.Filename][at.Start.Line] {
		return
	}
	l.Diagnostics = append(l.Diagnostics, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: at,
	})
}

func (l *Loaded) failAt(e hcl.Expression, summary, detail string) {
	at := e.Range()
	l.fail(summary, detail, &at)
}

// lackAt reports that a method cannot use its secret or list. For the kept rules this is a
// warning, as the door works without the method.
func (l *Loaded) lackAt(e hcl.Expression, summary, detail string) {
	at := e.Range()
	l.lackIn(&at, summary, detail)
}

// lackIn is lackAt for a place.
func (l *Loaded) lackIn(at *hcl.Range, summary, detail string) {
	if l.reader == makeshift {
		l.warn(summary, detail, at)
		return
	}
	l.fail(summary, detail, at)
}
