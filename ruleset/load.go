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

	files  map[string]*hcl.File
	shown  map[string][]byte       // the text of files with stars in place of possible secrets
	broken map[string]map[int]bool // the files with syntax errors, and the lines of these errors

	size   int // of all files, in bytes
	path   string
	reader reader
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
func Load(path string) *Loaded { return load(path, daemon) }

// Review reads rule files as [Load] does, for a process that is not the daemon. systemd
// gives credentials to the daemon only, and lists may be made later. A missing credential
// or list is a warning, and is missing from the configuration.
func Review(path string) *Loaded { return load(path, reviewer) }

// Rehearse reads rule files as [Load] does, for a process that has all that the daemon has
// except its credentials. A missing credential is a warning.
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
	maps.Copy(l.files, parser.Files())
	config := l.check(&raw)
	if !l.Diagnostics.HasErrors() {
		l.Config = config
	}
	slices.SortStableFunc(l.Diagnostics, inOrder)
	l.shorten()
	return l
}

// Errors returns a copy without the warnings.
func (l *Loaded) Errors() *Loaded {
	errors := *l
	errors.Diagnostics = slices.DeleteFunc(slices.Clone(l.Diagnostics), func(d *hcl.Diagnostic) bool { return d.Severity != hcl.DiagError })
	return &errors
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
		return nil, fmt.Errorf("%s has more than %d entries, too many for a folder of rule files: name another with --config", path, maxEntries)
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
		l.broken[name] = map[int]bool{} // HCL leaves out both blocks, so attributes seem to be missing
	}
	schema := doorSchema()
	for i := range part.Doors {
		l.decodeDoor(&part.Doors[i], schema)
	}
	raw.Walls = append(raw.Walls, part.Walls...)
	raw.Doors = append(raw.Doors, part.Doors...)
}

// isDuplicate reports whether HCL found a second block of a type that is allowed once.
func isDuplicate(d *hcl.Diagnostic) bool {
	return strings.HasPrefix(d.Summary, "Duplicate ") && strings.HasSuffix(d.Summary, " block")
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

// rawConfig, rawWall and rawDoor are the rule files as HCL decodes them. Attributes stay
// expressions, so that diagnostics can point at each value.
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

	content         *hcl.BodyContent // the content of Body; methods read their parts of it
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

// attributes returns the fields for the door's own attributes, by attribute name.
func (r *rawDoor) attributes() map[string]*hcl.Expression {
	return map[string]*hcl.Expression{
		"ports": &r.Ports, "close_sequence": &r.CloseSequence, "seq_timeout": &r.SequenceTimeout,
		"window": &r.Window, "tcp_flags": &r.Flags, "max_connections": &r.MaxConnections,
		"closed": &r.Closed, "on_failure": &r.OnFailure, "interfaces": &r.Interfaces, "to": &r.To,
		"trusted": &r.Trusted, "source_prefix": &r.SourcePrefix, "penalty_prefix": &r.PenaltyPrefix,
		"udp_timeout": &r.UDPTimeout, "traps": &r.Traps, "penalty": &r.Penalty,
	}
}

// doorSchema returns the attributes and blocks of a door, those of the methods included.
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

// decodeDoor decodes the body of a door, except the parts that methods read.
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

// attribute returns the value of an attribute, or an expression for which absent is true.
func (r *rawDoor) attribute(name string) hcl.Expression {
	if a := r.content.Attributes[name]; a != nil {
		return a.Expr
	}
	return hcl.StaticExpr(cty.NullVal(cty.DynamicPseudoType), r.Body.MissingItemRange())
}

// oneBlock returns the first block of a type, or nil. It reports any further one as an
// error.
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
			l.fail("Second wall block", fmt.Sprintf("Only one wall block is allowed. The first is at %s.", fileLine(raw.Walls[0].Range)), &r.Range)
			continue
		}
		l.checkWall(&r, &c.Wall)
	}
	if len(raw.Doors) > maxDoors {
		l.fail("Too many doors", fmt.Sprintf("The rule files have %d doors. At most %d are allowed.", len(raw.Doors), maxDoors), &raw.Doors[maxDoors].Range)
		raw.Doors = raw.Doors[:maxDoors]
	}
	first := map[string]hcl.Range{}
	for i := range raw.Doors {
		r := &raw.Doors[i]
		if at, ok := first[r.Name]; ok {
			l.fail("Two doors of one name", fmt.Sprintf("The door %q is already defined at %s. Give this one another name.", r.Name, fileLine(at)), &r.NameRange)
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
	number(l, r.LogGroup, &w.LogGroup, 1, 65534, "An NFLOG group is a whole number from %d to %d. The daemon uses it and the next one.")
	number(l, r.Queue, &w.Queue, 0, 65530, "A queue is a whole number from %d to %d. The daemon uses it and the next five.")
	w.Interfaces = l.interfaces(r.Interfaces)
	w.Trusted = l.addresses(r.Trusted, "")
	choose(l, r.OnStop, &w.OnStop, Keep, Remove)
	l.duration(r.Hold, &w.Hold, 0, 2*time.Second)
	l.duration(r.Reorder, &w.Reorder, 0, time.Second)
	number(l, r.MaxSources, &w.MaxSources, 16, 1<<22, "The number of sources that are tracked at once is a whole number from %d to %d.")
}

// checkAgreement reports an error if the last door and an earlier one guard the same port,
// but answer sources without a window there in different ways.
func (l *Loaded) checkAgreement(doors []Door, raw *rawConfig) {
	d := &doors[len(doors)-1]
	r := &raw.Doors[len(doors)-1]
	for i := range doors[:len(doors)-1] {
		other := &doors[i]
		if (d.Closed != other.Closed || d.OnFailure != other.OnFailure) && d.meets(other) {
			l.fail("Doors that disagree", fmt.Sprintf("The door %q guards one of these ports, too, but has another closed or on_failure. "+
				"Give both doors the same values.", other.Name), &r.Range)
			return
		}
	}
}

// meets reports whether both doors may guard the same packet.
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
	number(l, r.MaxConnections, &d.MaxConnections, 1, 1000, "The number of connections per window is a whole number from %d to %d. Leave max_connections out for no limit.")
	choose(l, r.Closed, &d.Closed, Drop, Reject)
	choose(l, r.OnFailure, &d.OnFailure, FailClosed, FailOpen)
	d.Interfaces = l.interfaces(r.Interfaces)
	if absent(r.Interfaces) {
		d.Interfaces = w.Interfaces
	}
	d.To = l.addresses(r.To, "The door would guard nothing. Leave \"to\" out to guard this host's own addresses.")
	d.Trusted = l.addresses(r.Trusted, "")
	l.sourcePrefix(r.SourcePrefix, &d.SourcePrefix)
	l.penaltyPrefix(r.PenaltyPrefix, &d)
	l.duration(r.UDPTimeout, &d.UDPTimeout, MinUDPTimeout, MaxUDPTimeout)
	l.traps(r.Traps, &d)
	l.duration(r.Penalty, &d.Penalty, time.Second, MaxWindow)
	d.OnOpen, d.OnClose = l.command(r.OnOpen), l.command(r.OnClose)
	return d
}

// plainer has details for HCL's diagnostics, by summary, in the words of rule files.
var plainer = map[string]string{
	"Missing name for door":          `Write a name, as in door "ssh" { … }.`,
	"Extraneous label for door":      `A door has one name, as in door "ssh" { … }.`,
	"Missing newline after argument": `The value ends here, but the line goes on. Write text in quotes: "30s".`,
	"Missing item separator":         `Write a comma between two values, and text in quotes: ["192.0.2.1", 22].`,
	"Invalid number literal":         `Write text in quotes, addresses too: "192.0.2.1".`,
	"Invalid multi-line string":      "The quote that ends the text is missing on this line.",
	"Unterminated template string":   "The quote that ends the text is missing.",
}

// foreign adds the diagnostics of HCL, without secrets.
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

// shownText returns the text of a rule file with stars in place of possible secrets.
func (l *Loaded) shownText(name string) []byte {
	if file := l.files[name]; file != nil && l.shown[name] == nil {
		l.shown[name] = hideSecrets(file.Bytes)
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
	if l.reader == makeshift {
		l.warnAt(e, summary, detail)
		return
	}
	l.failAt(e, summary, detail)
}
