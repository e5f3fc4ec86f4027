package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/knockwall/knockwall/internal/methods"
	"github.com/knockwall/knockwall/internal/ownership"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// The bounds of what is read, and of what is said of it: rule files are written
// by hand.
const (
	maxFileSize    = 256 << 10
	maxAllSizes    = 2 << 20 // of all files
	maxEntries     = 10000   // of a folder, rule files or not
	maxFiles       = 1000
	maxNesting     = 1000
	maxDiagnostics = 1000
)

// Loaded is what Load found.
type Loaded struct {
	Config      *Config // nil if there are errors
	Diagnostics hcl.Diagnostics

	files  map[string]*hcl.File
	shown  map[string][]byte       // their text, as far as it may be shown
	broken map[string]map[int]bool // the files that have errors in their syntax, and the lines of these

	size   int // of all files, in bytes
	path   string
	reader reader
}

// reader is who reads rule files, and what it takes for wrong.
type reader uint8

const (
	daemon     reader = iota // all that the files name has to be there
	rehearsing               // but the credentials of a service, which who is none cannot know
	reviewer                 // but lists, too, which may not be there yet
	makeshift                // who has nothing better: a way to open a door may be missing
)

// Load reads the rule files at path: one file, or every *.hcl of a folder in
// lexical order, as one configuration. It finds all errors before it gives up.
func Load(path string) *Loaded { return load(path, daemon) }

// Review reads rule files as [Load] does, for somebody who is not the daemon:
// credentials, which systemd gives to the daemon alone, and lists that are not there
// yet are no error then, but a warning, and missing from the configuration.
func Review(path string) *Loaded { return load(path, reviewer) }

// Rehearse reads rule files as [Load] does, for somebody who has all that the daemon has
// but its credentials, which are a warning.
func Rehearse(path string) *Loaded { return load(path, rehearsing) }

func load(path string, by reader) *Loaded {
	l := &Loaded{files: map[string]*hcl.File{}, shown: map[string][]byte{}, broken: map[string]map[int]bool{}, path: path, reader: by}
	names, err := ruleFiles(path)
	if err != nil {
		l.fail("Cannot read the rule files", forbidden(err, "r").Error(), nil)
		return l
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		l.owned(path, ownership.Folder)
	}
	parser := hclparse.NewParser()
	var raw rawConfig
	for _, name := range names {
		if l.size > maxAllSizes {
			l.fail("Too much to read", fmt.Sprintf("The rule files have more than %d MiB together; those from %s on are not read.", maxAllSizes>>20, name), nil)
			break
		}
		// To read a pipe in a folder would be to wait for ever; one that is named by
		// itself, as <(…) of a shell, is meant.
		if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() && name != path {
			l.fail("Cannot read a rule file", name+" is not a file. Remove it, or give it another name.", nil)
			continue
		}
		l.owned(name, ownership.File)
		l.parse(parser, name, &raw)
	}
	maps.Copy(l.files, parser.Files())
	config := l.check(&raw)
	if !l.Diagnostics.HasErrors() {
		l.Config = config
	}
	slices.SortStableFunc(l.Diagnostics, inOrder)
	l.shorten()
	return l
}

// Errors returns what Load found without the warnings, for who is not to be told of
// these.
func (l *Loaded) Errors() *Loaded {
	errors := *l
	errors.Diagnostics = slices.DeleteFunc(slices.Clone(l.Diagnostics), func(d *hcl.Diagnostic) bool { return d.Severity != hcl.DiagError })
	return &errors
}

// shorten leaves out what nobody would read to its end.
func (l *Loaded) shorten() {
	if n := len(l.Diagnostics) - maxDiagnostics; n > 0 {
		l.Diagnostics = append(l.Diagnostics[:maxDiagnostics:maxDiagnostics], &hcl.Diagnostic{
			Severity: l.Diagnostics[maxDiagnostics].Severity,
			Summary:  fmt.Sprintf("And %d more", n),
			Detail:   fmt.Sprintf("Only the first %d are told.", maxDiagnostics),
		})
	}
}

// inOrder compares diagnostics by where they are, those of no place first.
func inOrder(a, b *hcl.Diagnostic) int {
	var none hcl.Range
	p, q := cmp.Or(a.Subject, &none), cmp.Or(b.Subject, &none)
	return cmp.Or(cmp.Compare(p.Filename, q.Filename), cmp.Compare(p.Start.Byte, q.Start.Byte))
}

func ruleFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist. Make it, or name another folder or file with --config", path)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	entries, err := folder.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("%s has more than %d entries, and is no folder for rule files: name another with --config", path, maxEntries)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".hcl") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("%s has %d rule files; at most %d are read", path, len(names), maxFiles)
	}
	slices.Sort(names)
	return names, nil
}

func (l *Loaded) parse(parser *hclparse.Parser, name string, raw *rawConfig) {
	text, err := readBounded(name)
	l.size += len(text)
	if err != nil {
		l.fail("Cannot read a rule file", forbidden(err, "r").Error(), nil)
		return
	}
	l.files[name] = &hcl.File{Bytes: text}
	if at := tooDeep(text, name); at != nil {
		l.fail("Nested too deeply", fmt.Sprintf("At most %d brackets and operators may be nested.", maxNesting), at)
		return
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
		return
	}
	var part rawConfig
	diags = gohcl.DecodeBody(file.Body, nil, &part)
	l.foreign(diags)
	if slices.ContainsFunc(diags, isDuplicate) && l.broken[name] == nil {
		l.broken[name] = map[int]bool{} // HCL leaves out both
	}
	schema := doorSchema()
	for i := range part.Doors {
		l.decodeDoor(&part.Doors[i], schema)
	}
	raw.Walls = append(raw.Walls, part.Walls...)
	raw.Doors = append(raw.Doors, part.Doors...)
}

// isDuplicate reports whether HCL found a block twice that can be there once.
func isDuplicate(d *hcl.Diagnostic) bool {
	return strings.HasPrefix(d.Summary, "Duplicate ") && strings.HasSuffix(d.Summary, " block")
}

// owned refuses what others can change.
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
		err = fmt.Errorf("%s: a rule file may have %d KiB at most", name, maxFileSize>>10)
	}
	return text, err
}

// tooDeep returns where brackets and operators may nest more than maxNesting
// deep, if they do. The parser recurses into them, and would run out of stack on
// a file of nothing else. Operators have no end to see, so all of them count.
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

// rawConfig, rawWall and rawDoor are rule files as HCL has them. Attributes stay
// expressions, so that what is wrong with a value can be said of that value.
type rawConfig struct {
	Walls []rawWall `hcl:"wall,block"`
	Doors []rawDoor `hcl:"door,block"`
}

type rawWall struct {
	Table      hcl.Expression `hcl:"table,optional"`
	LogGroup   hcl.Expression `hcl:"nflog_group,optional"`
	Queue      hcl.Expression `hcl:"queue,optional"`
	Interfaces hcl.Expression `hcl:"interfaces,optional"`
	Trusted    hcl.Expression `hcl:"trusted,optional"`
	OnStop     hcl.Expression `hcl:"on_stop,optional"`
	Hold       hcl.Expression `hcl:"hold,optional"`
	Reorder    hcl.Expression `hcl:"reorder,optional"`
	MaxSources hcl.Expression `hcl:"max_sources,optional"`
	Range      hcl.Range      `hcl:",def_range"`
}

type rawDoor struct {
	Name      string    `hcl:"name,label"`
	Range     hcl.Range `hcl:",def_range"`
	NameRange hcl.Range `hcl:"name,label_range"`
	Body      hcl.Body  `hcl:",remain"`

	content         *hcl.BodyContent // of Body; methods read their parts of it
	Ports           hcl.Expression
	CloseSequence   hcl.Expression
	SequenceTimeout hcl.Expression
	Window          hcl.Expression
	Flags           hcl.Expression
	MaxConnections  hcl.Expression
	Closed          hcl.Expression
	OnFailure       hcl.Expression
	Interfaces      hcl.Expression
	To              hcl.Expression
	Trusted         hcl.Expression
	SourcePrefix    hcl.Expression
	PenaltyPrefix   hcl.Expression
	UDPTimeout      hcl.Expression
	Traps           hcl.Expression
	Penalty         hcl.Expression
	OnOpen, OnClose *rawCommand
}

// attributes returns where the door's own attributes go, by name.
func (r *rawDoor) attributes() map[string]*hcl.Expression {
	return map[string]*hcl.Expression{
		"ports": &r.Ports, "close_sequence": &r.CloseSequence, "seq_timeout": &r.SequenceTimeout,
		"window": &r.Window, "tcp_flags": &r.Flags, "max_connections": &r.MaxConnections,
		"closed": &r.Closed, "on_failure": &r.OnFailure, "interfaces": &r.Interfaces, "to": &r.To,
		"trusted": &r.Trusted, "source_prefix": &r.SourcePrefix, "penalty_prefix": &r.PenaltyPrefix,
		"udp_timeout": &r.UDPTimeout, "traps": &r.Traps, "penalty": &r.Penalty,
	}
}

// doorSchema is what a door may have, with what the methods read.
func doorSchema() *hcl.BodySchema {
	schema := &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "on_open"}, {Type: "on_close"}}}
	names := slices.Collect(maps.Keys(new(rawDoor).attributes()))
	for _, k := range methods.Kinds {
		if k.Block != nil {
			schema.Blocks = append(schema.Blocks, hcl.BlockHeaderSchema{Type: k.Name})
		}
		if k.Attribute != nil {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name})
	}
	return schema
}

// decodeDoor decodes the body of a door as far as it is not a method's.
func (l *Loaded) decodeDoor(r *rawDoor, schema *hcl.BodySchema) {
	content, diags := r.Body.Content(schema)
	l.foreign(diags)
	r.content = content
	for name, to := range r.attributes() {
		*to = r.attribute(name)
	}
	for name, to := range map[string]**rawCommand{"on_open": &r.OnOpen, "on_close": &r.OnClose} {
		if b := l.oneBlock(r, name); b != nil {
			*to = &rawCommand{Range: b.DefRange}
			l.foreign(gohcl.DecodeBody(b.Body, nil, *to))
		}
	}
}

// attribute returns the value of an attribute, or one that is absent.
func (r *rawDoor) attribute(name string) hcl.Expression {
	if a := r.content.Attributes[name]; a != nil {
		return a.Expr
	}
	return hcl.StaticExpr(cty.NullVal(cty.DynamicPseudoType), r.Body.MissingItemRange())
}

// oneBlock returns the block of a type that a door can have once, or nil if it has none.
func (l *Loaded) oneBlock(r *rawDoor, name string) *hcl.Block {
	var first *hcl.Block
	for _, b := range r.content.Blocks {
		switch {
		case b.Type != name:
		case first == nil:
			first = b
		default:
			l.fail("Duplicate "+name+" block", fmt.Sprintf("Only one %s block is allowed. Another was defined at %s.", name, fileLine(first.DefRange)), &b.DefRange)
		}
	}
	return first
}

type rawCommand struct {
	Command hcl.Expression `hcl:"command"`
	Timeout hcl.Expression `hcl:"timeout,optional"`
	Range   hcl.Range      `hcl:",def_range"`
}

func (l *Loaded) check(raw *rawConfig) *Config {
	c := &Config{Wall: defaultWall}
	for i, r := range raw.Walls {
		if i > 0 {
			l.fail("A second wall", fmt.Sprintf("There is one wall at most, and it stands at %s.", fileLine(raw.Walls[0].Range)), &r.Range)
			continue
		}
		l.checkWall(&r, &c.Wall)
	}
	if len(raw.Doors) > maxDoors {
		l.fail("Too many doors", fmt.Sprintf("There are %d doors; at most %d can be guarded.", len(raw.Doors), maxDoors), &raw.Doors[maxDoors].Range)
		raw.Doors = raw.Doors[:maxDoors]
	}
	first := map[string]hcl.Range{}
	for i := range raw.Doors {
		r := &raw.Doors[i]
		if at, ok := first[r.Name]; ok {
			l.fail("Two doors of one name", fmt.Sprintf("The door %q stands already at %s. Give this one another name.", r.Name, fileLine(at)), &r.NameRange)
		} else {
			first[r.Name] = r.NameRange
		}
		c.Doors = append(c.Doors, l.checkDoor(r, &c.Wall))
		l.checkAgreement(c.Doors, raw)
	}
	l.advise(raw, c)
	return c
}

func fileLine(at hcl.Range) string { return fmt.Sprintf("%s line %d", at.Filename, at.Start.Line) }

var (
	tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)
	doorName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)
)

func (l *Loaded) checkWall(r *rawWall, w *Wall) {
	l.text(r.Table, &w.Table)
	if !tableName.MatchString(w.Table) {
		l.failAt(r.Table, "Not a table name", "A table name is a letter or underscore, then up to 31 letters, digits and underscores.")
	}
	number(l, r.LogGroup, &w.LogGroup, 1, 65534, "An NFLOG group is a whole number from %d to %d. It and the next one are used.")
	number(l, r.Queue, &w.Queue, 0, 65530, "A queue is a whole number from %d to %d. It and the next five are used.")
	w.Interfaces = l.interfaces(r.Interfaces)
	w.Trusted = l.addresses(r.Trusted, "")
	choose(l, r.OnStop, &w.OnStop, Keep, Remove)
	l.duration(r.Hold, &w.Hold, 0, 2*time.Second)
	l.duration(r.Reorder, &w.Reorder, 0, time.Second)
	number(l, r.MaxSources, &w.MaxSources, 16, 1<<22, "How many sources are followed at once is a whole number from %d to %d.")
}

// checkAgreement makes sure that the last door agrees with those before it on
// what strangers get at a port that both guard: only one of them can answer.
func (l *Loaded) checkAgreement(doors []Door, raw *rawConfig) {
	d := &doors[len(doors)-1]
	r := &raw.Doors[len(doors)-1]
	for i := range doors[:len(doors)-1] {
		other := &doors[i]
		if (d.Closed != other.Closed || d.OnFailure != other.OnFailure) && d.meets(other) {
			l.fail("Doors that disagree", fmt.Sprintf("The door %q guards one of these ports, too, and only one of them can answer strangers there: "+
				"give both the same closed and on_failure.", other.Name), &r.Range)
			return
		}
	}
}

// meets reports whether a packet may come before both doors.
func (d *Door) meets(other *Door) bool {
	apart := len(d.Interfaces) > 0 && len(other.Interfaces) > 0 &&
		!slices.ContainsFunc(d.Interfaces, func(p string) bool {
			return slices.ContainsFunc(other.Interfaces, func(q string) bool { return interfacesMeet(p, q) })
		})
	apart = apart || len(d.To) > 0 && len(other.To) > 0 &&
		!slices.ContainsFunc(d.To, func(p netip.Prefix) bool { return slices.ContainsFunc(other.To, p.Overlaps) })
	return !apart && slices.ContainsFunc(d.Ports, func(p packet.PortRange) bool {
		return slices.ContainsFunc(other.Ports, p.Overlaps)
	})
}

func (l *Loaded) checkDoor(r *rawDoor, w *Wall) Door {
	d := defaultDoor
	d.Name = r.Name
	if !doorName.MatchString(d.Name) {
		l.fail("Not a door name", "A door's name is a letter, then up to 31 letters, digits, hyphens and underscores.", &r.NameRange)
	}
	d.Ports = l.ports(r)
	l.methods(r, &d)
	l.duration(r.SequenceTimeout, &d.SequenceTimeout, 100*time.Millisecond, sequence.MaxTimeout)
	l.duration(r.Window, &d.Window, MinWindow, MaxWindow)
	l.flags(r.Flags, &d.Flags)
	number(l, r.MaxConnections, &d.MaxConnections, 1, 1000, "How many connections a window admits is a whole number from %d to %d. Leave it out for no limit.")
	choose(l, r.Closed, &d.Closed, Drop, Reject)
	choose(l, r.OnFailure, &d.OnFailure, FailClosed, FailOpen)
	d.Interfaces = l.interfaces(r.Interfaces)
	if absent(r.Interfaces) {
		d.Interfaces = w.Interfaces
	}
	d.To = l.addresses(r.To, "Nothing would be guarded. Leave to out to guard this host's own addresses.")
	d.Trusted = l.addresses(r.Trusted, "")
	l.sourcePrefix(r.SourcePrefix, &d.SourcePrefix)
	l.penaltyPrefix(r.PenaltyPrefix, &d)
	l.duration(r.UDPTimeout, &d.UDPTimeout, MinUDPTimeout, MaxUDPTimeout)
	l.traps(r.Traps, &d)
	l.duration(r.Penalty, &d.Penalty, time.Second, MaxWindow)
	d.OnOpen, d.OnClose = l.command(r.OnOpen), l.command(r.OnClose)
	return d
}

// plainer says what HCL says in words that are made for other files than ours.
var plainer = map[string]string{
	"Missing name for door":          `Give it one, as in door "ssh" { … }.`,
	"Extraneous label for door":      `A door has one name, as in door "ssh" { … }.`,
	"Missing newline after argument": `What is written after the = ends here, but not the line. Text stands in quotes: "30s".`,
	"Missing item separator":         `A comma stands between two values, and quotes around text: ["192.0.2.1", 22].`,
	"Invalid number literal":         `Text stands in quotes, addresses too: "192.0.2.1".`,
	"Invalid multi-line string":      "The quote that ends the text is missing on this line.",
	"Unterminated template string":   "The quote that ends the text is missing.",
}

// foreign takes over what HCL found.
func (l *Loaded) foreign(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Subject != nil {
			shown := l.shownText(d.Subject.Filename)
			d.Summary, d.Detail = withoutSecrets(d.Summary, shown), withoutSecrets(d.Detail, shown)
		}
		if detail, ok := plainer[d.Summary]; ok {
			d.Detail = detail
		}
	}
	l.Diagnostics = append(l.Diagnostics, diags...)
}

// shownText returns the text of a rule file, as far as it may be shown.
func (l *Loaded) shownText(name string) []byte {
	if file := l.files[name]; file != nil && l.shown[name] == nil {
		l.shown[name] = hideSecrets(file.Bytes)
	}
	return l.shown[name]
}

// fail reports an error, unless the line cannot be read to begin with.
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

// lackAt says that what a way to open a door needs cannot be used. Whoever has nothing
// better goes on without that way.
func (l *Loaded) lackAt(e hcl.Expression, summary, detail string) {
	if l.reader == makeshift {
		l.warnAt(e, summary, detail)
		return
	}
	l.failAt(e, summary, detail)
}
