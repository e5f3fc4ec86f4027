package ruleset

import (
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
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// maxFileSize and maxFiles bound what is read: a rule file is written by hand.
const (
	maxFileSize = 256 << 10
	maxFiles    = 1000
	maxNesting  = 1000
)

// Loaded is what Load found.
type Loaded struct {
	Config      *Config // nil if there are errors
	Diagnostics hcl.Diagnostics

	files map[string]*hcl.File
}

// WriteText writes the diagnostics for people, each with its source line and a
// caret, wrapped at width columns.
func (l *Loaded) WriteText(w io.Writer, width uint, color bool) error {
	return hcl.NewDiagnosticTextWriter(w, l.files, width, color).WriteDiagnostics(l.Diagnostics)
}

// Load reads the rule files at path: one file, or every *.hcl of a folder in
// lexical order, as one configuration. It finds all errors before it gives up.
func Load(path string) *Loaded {
	l := &Loaded{files: map[string]*hcl.File{}}
	names, err := ruleFiles(path)
	if err != nil {
		l.fail("Cannot read the rule files", err.Error(), nil)
		return l
	}
	parser := hclparse.NewParser()
	var raw rawConfig
	for _, name := range names {
		l.parse(parser, name, &raw)
	}
	maps.Copy(l.files, parser.Files())
	config := l.check(&raw)
	if !l.Diagnostics.HasErrors() {
		l.Config = config
	}
	return l
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
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
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
	return names, nil
}

func (l *Loaded) parse(parser *hclparse.Parser, name string, raw *rawConfig) {
	text, err := readBounded(name)
	if err != nil {
		l.fail("Cannot read a rule file", err.Error(), nil)
		return
	}
	if nesting(text) > maxNesting {
		l.fail("Brackets nested too deeply", fmt.Sprintf("%s: brackets are nested more than %d deep.", name, maxNesting), nil)
		return
	}
	file, diags := parser.ParseHCL(text, name)
	l.Diagnostics = append(l.Diagnostics, diags...)
	if file == nil {
		return
	}
	var part rawConfig
	l.Diagnostics = append(l.Diagnostics, gohcl.DecodeBody(file.Body, nil, &part)...)
	raw.Walls = append(raw.Walls, part.Walls...)
	raw.Doors = append(raw.Doors, part.Doors...)
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

// nesting returns how deep brackets are nested, or more, as it does not look
// for strings and comments. The parser recurses into them, and would run out of
// stack on a file of nothing else.
func nesting(text []byte) int {
	depth, deepest := 0, 0
	for _, c := range text {
		switch c {
		case '(', '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ')', ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return deepest
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
	Name            string         `hcl:"name,label"`
	Ports           hcl.Expression `hcl:"ports,optional"`
	Sequence        hcl.Expression `hcl:"sequence,optional"`
	SequenceTimeout hcl.Expression `hcl:"seq_timeout,optional"`
	Window          hcl.Expression `hcl:"window,optional"`
	Flags           hcl.Expression `hcl:"tcp_flags,optional"`
	MaxConnections  hcl.Expression `hcl:"max_connections,optional"`
	Closed          hcl.Expression `hcl:"closed,optional"`
	OnFailure       hcl.Expression `hcl:"on_failure,optional"`
	Interfaces      hcl.Expression `hcl:"interfaces,optional"`
	To              hcl.Expression `hcl:"to,optional"`
	Trusted         hcl.Expression `hcl:"trusted,optional"`
	SourcePrefix    hcl.Expression `hcl:"source_prefix,optional"`
	Range           hcl.Range      `hcl:",def_range"`
	NameRange       hcl.Range      `hcl:"name,label_range"`
}

func (l *Loaded) check(raw *rawConfig) *Config {
	c := &Config{Wall: defaultWall}
	for i, r := range raw.Walls {
		if i > 0 {
			l.fail("A second wall", fmt.Sprintf("There is one wall at most, and %s has it already.", raw.Walls[0].Range), &r.Range)
			continue
		}
		l.checkWall(&r, &c.Wall)
	}
	if len(raw.Doors) > sequence.MaxDoors {
		l.fail("Too many doors", fmt.Sprintf("There are %d doors; at most %d can be guarded.", len(raw.Doors), sequence.MaxDoors), nil)
	}
	first := map[string]hcl.Range{}
	for i := range raw.Doors {
		r := &raw.Doors[i]
		if at, ok := first[r.Name]; ok {
			l.fail("Two doors of one name", fmt.Sprintf("The door %q stands already at %s. Give this one another name.", r.Name, at), &r.NameRange)
		} else {
			first[r.Name] = r.NameRange
		}
		c.Doors = append(c.Doors, l.checkDoor(r, &c.Wall))
	}
	l.advise(raw, c)
	return c
}

var (
	tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)
	doorName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)
)

func (l *Loaded) checkWall(r *rawWall, w *Wall) {
	l.text(r.Table, &w.Table)
	if !tableName.MatchString(w.Table) {
		l.failAt(r.Table, "Not a table name", "A table name is a letter or underscore, then up to 31 letters, digits and underscores.")
	}
	number(l, r.LogGroup, &w.LogGroup, 1, 65534, "an NFLOG group; it and the next one are used")
	number(l, r.Queue, &w.Queue, 0, 65532, "a queue number; it and the next three are used")
	w.Interfaces = l.interfaces(r.Interfaces)
	w.Trusted = l.addresses(r.Trusted)
	choose(l, r.OnStop, &w.OnStop, Keep, Remove)
	l.duration(r.Hold, &w.Hold, 0, 2*time.Second)
	l.duration(r.Reorder, &w.Reorder, 0, time.Second)
	number(l, r.MaxSources, &w.MaxSources, 16, 1<<22, "how many sources are followed at once")
}

func (l *Loaded) checkDoor(r *rawDoor, w *Wall) Door {
	d := defaultDoor
	d.Name = r.Name
	if !doorName.MatchString(d.Name) {
		l.fail("Not a door name", "A door's name is a letter, then up to 31 letters, digits, hyphens and underscores.", &r.NameRange)
	}
	d.Ports = l.ports(r)
	d.Sequence = l.sequence(r)
	l.duration(r.SequenceTimeout, &d.SequenceTimeout, 100*time.Millisecond, sequence.MaxTimeout)
	l.duration(r.Window, &d.Window, 100*time.Millisecond, 24*time.Hour)
	l.flags(r.Flags, &d.Flags)
	number(l, r.MaxConnections, &d.MaxConnections, 1, 1000, "how many connections a window admits")
	choose(l, r.Closed, &d.Closed, Drop, Reject)
	choose(l, r.OnFailure, &d.OnFailure, FailClosed, FailOpen)
	d.Interfaces = l.interfaces(r.Interfaces)
	if absent(r.Interfaces) {
		d.Interfaces = w.Interfaces
	}
	d.To = l.addresses(r.To)
	d.Trusted = l.addresses(r.Trusted)
	l.sourcePrefix(r.SourcePrefix, &d.SourcePrefix)
	return d
}

func (l *Loaded) fail(summary, detail string, at *hcl.Range) {
	l.Diagnostics = append(l.Diagnostics, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: at,
	})
}

func (l *Loaded) failAt(e hcl.Expression, summary, detail string) {
	at := e.Range()
	l.fail(summary, detail, &at)
}

// absent reports whether an optional attribute was not given, or given as null.
func absent(e hcl.Expression) bool {
	if e == nil {
		return true
	}
	v, diags := e.Value(nil)
	return !diags.HasErrors() && v.IsNull()
}

// decode evaluates an optional attribute into to, which keeps its default when
// there is none, and reports whether it did.
func (l *Loaded) decode(e hcl.Expression, to any) bool {
	if absent(e) {
		return false
	}
	diags := gohcl.DecodeExpression(e, nil, to)
	l.Diagnostics = append(l.Diagnostics, diags...)
	return !diags.HasErrors()
}

func (l *Loaded) text(e hcl.Expression, to *string) {
	var s string
	if l.decode(e, &s) {
		*to = s
	}
}

func number[N int | uint16](l *Loaded, e hcl.Expression, to *N, least, most int, what string) {
	var n int
	if !l.decode(e, &n) {
		return
	}
	if n < least || n > most {
		l.failAt(e, "Number out of range", fmt.Sprintf("This is %s, from %d to %d.", what, least, most))
		return
	}
	*to = N(n)
}

func choose[T ~string](l *Loaded, e hcl.Expression, to *T, choices ...T) {
	var s string
	if !l.decode(e, &s) {
		return
	}
	if !slices.Contains(choices, T(s)) {
		l.failAt(e, "Not one of the choices", fmt.Sprintf("This is one of %q.", choices))
		return
	}
	*to = T(s)
}

func (l *Loaded) duration(e hcl.Expression, to *time.Duration, least, most time.Duration) {
	var s string
	if !l.decode(e, &s) {
		return
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		l.failAt(e, "Not a duration", `A duration is a number with its unit, in quotes: "200ms", "5s", "1m30s" or "2h".`)
	case d < least || d > most:
		l.failAt(e, "Duration out of range", fmt.Sprintf("This may be from %s to %s.", short(least), short(most)))
	default:
		*to = d
	}
}

// short writes a duration without the zero minutes and seconds at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// list evaluates an optional list of strings and numbers and hands each of them
// to item as text, with the expression to point at if it is wrong.
// It reports how many there are, and false if there is no list.
func (l *Loaded) list(e hcl.Expression, item func(hcl.Expression, string)) (n int, ok bool) {
	if absent(e) {
		return 0, false
	}
	elements, diags := hcl.ExprList(e)
	if diags.HasErrors() {
		l.failAt(e, "Not a list", "Write a list, even of one: [ … ].")
		return 0, false
	}
	for _, element := range elements {
		v, diags := element.Value(nil)
		l.Diagnostics = append(l.Diagnostics, diags...)
		if diags.HasErrors() {
			continue
		}
		s, err := convert.Convert(v, cty.String)
		if err != nil || s.IsNull() || v.Type() == cty.Bool {
			l.failAt(element, "Not a list of values", "What is in this list is written as text or as a number.")
			continue
		}
		item(element, s.AsString())
	}
	return len(elements), true
}

func (l *Loaded) ports(r *rawDoor) []packet.PortRange {
	var ports []packet.PortRange
	n, ok := l.list(r.Ports, func(e hcl.Expression, s string) {
		r, err := packet.ParsePortRange(s)
		if err != nil {
			l.failAt(e, "Not a port", sentence(err))
			return
		}
		ports = append(ports, r)
	})
	if absent(r.Ports) || ok && n == 0 {
		l.fail("No ports", `A door needs ports to guard: ports = [22], or ["51820/udp"], or ["8000-8010/tcp"].`, &r.Range)
	}
	return merge(ports)
}

// merge sorts ranges and joins those that overlap or touch, as the kernel's
// sets want them.
func merge(ports []packet.PortRange) []packet.PortRange {
	slices.SortFunc(ports, func(a, b packet.PortRange) int {
		if a.Protocol != b.Protocol {
			return int(a.Protocol) - int(b.Protocol)
		}
		return int(a.First) - int(b.First)
	})
	var merged []packet.PortRange
	for _, r := range ports {
		if n := len(merged); n > 0 && merged[n-1].Protocol == r.Protocol && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

func (l *Loaded) sequence(r *rawDoor) []packet.Port {
	var steps []packet.Port
	n, ok := l.list(r.Sequence, func(e hcl.Expression, s string) {
		p, err := packet.ParsePort(s)
		if err != nil {
			l.failAt(e, "Not a knock", sentence(err))
			return
		}
		steps = append(steps, p)
	})
	switch {
	case absent(r.Sequence) || ok && n == 0:
		l.fail("No sequence", `A door needs knocks that open it: sequence = [4113, "27911/udp", 1840].`, &r.Range)
	case n > sequence.MaxSteps:
		l.failAt(r.Sequence, "Sequence too long", fmt.Sprintf("A sequence has %d knocks at most, this one has %d.", sequence.MaxSteps, n))
	}
	return steps
}

var flagNames = map[string]packet.Flags{
	"fin": packet.FIN, "syn": packet.SYN, "rst": packet.RST,
	"psh": packet.PSH, "ack": packet.ACK, "urg": packet.URG,
}

func (l *Loaded) flags(e hcl.Expression, to *FlagMatch) {
	var m FlagMatch
	n, ok := l.list(e, func(e hcl.Expression, s string) {
		name, unset := strings.CutPrefix(s, "!")
		flag, ok := flagNames[strings.ToLower(name)]
		switch {
		case !ok:
			l.failAt(e, "Not a TCP flag", `The flags are fin, syn, rst, psh, ack and urg; "!ack" is one that must not be set.`)
		case m.Mask&flag != 0:
			l.failAt(e, "Flag given twice", fmt.Sprintf("The list says already whether %s is set.", name))
		}
		m.Mask |= flag
		if !unset {
			m.Value |= flag
		}
	})
	switch {
	case n > 0:
		*to = m
	case ok:
		l.failAt(e, "No TCP flags", `Every packet would be a knock. Leave tcp_flags out for the default, ["syn", "!ack"].`)
	}
}

func (l *Loaded) interfaces(e hcl.Expression) []string {
	var names []string
	n, ok := l.list(e, func(e hcl.Expression, s string) {
		// dev_valid_name and IFNAMSIZ of the kernel.
		if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n\v\f\r\"*\\") {
			l.failAt(e, "Not an interface name", "An interface's name has from 1 to 15 characters, as ip link shows it.")
			return
		}
		names = append(names, s)
	})
	if ok && n == 0 {
		l.failAt(e, "No interfaces", "Nothing would be guarded. Leave interfaces out to guard all but lo.")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// addresses reads addresses and prefixes, and leaves out those that lie within
// another.
func (l *Loaded) addresses(e hcl.Expression) []netip.Prefix {
	var all []netip.Prefix
	l.list(e, func(e hcl.Expression, s string) {
		p, err := parsePrefix(s)
		if err != nil {
			l.failAt(e, "Not an address", sentence(err))
			return
		}
		all = append(all, p)
	})
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var distinct []netip.Prefix
	for _, p := range all {
		if n := len(distinct); n == 0 || !distinct[n-1].Overlaps(p) {
			distinct = append(distinct, p)
		}
	}
	return distinct
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return p, fmt.Errorf("%q is neither an address nor a prefix such as 192.0.2.0/24 or 2001:db8::/48", s)
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%q is an IPv4 address in IPv6 clothes: write %s", s, p.Addr().Unmap())
	}
	if p.Bits() == 0 {
		return p, fmt.Errorf("%q is every address there is", s)
	}
	return p.Masked(), nil
}

func (l *Loaded) sourcePrefix(e hcl.Expression, to *packet.SourcePrefix) {
	if absent(e) {
		return
	}
	pairs, diags := hcl.ExprMap(e)
	if diags.HasErrors() {
		l.failAt(e, "Not a source prefix", "Write { ipv4 = 32, ipv6 = 64 }, or one of the two.")
		return
	}
	for _, pair := range pairs {
		key, diags := pair.Key.Value(nil)
		l.Diagnostics = append(l.Diagnostics, diags...)
		switch {
		case diags.HasErrors():
		case key.Type() == cty.String && !key.IsNull() && key.AsString() == "ipv4":
			number(l, pair.Value, &to.IPv4, 1, 32, "a prefix length")
		case key.Type() == cty.String && !key.IsNull() && key.AsString() == "ipv6":
			number(l, pair.Value, &to.IPv6, 1, 128, "a prefix length")
		default:
			l.failAt(pair.Key, "Not a source prefix", "There are ipv4 and ipv6.")
		}
	}
}

// sentence makes an error's text one.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
