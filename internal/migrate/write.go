package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
)

// ruleFile is the rule file that an import makes.
type ruleFile struct {
	from          string
	kind          fileKind
	logs          []string // options of knockd about logs and its PID file
	interfaces    string   // the wall's interface
	configuration string   // the file that knockd was started with, if its options say so
	notes         []string // comments that apply to all doors
	doors         []*door
}

type fileKind int

const (
	fromKnockd    fileKind = iota
	fromRecipe             // sets of a firewall that lead from knock to knock
	fromAtomicorp          //
	fromDefaults           // only the options that knockd is started with
)

// writer writes HCL. All text of the input must go through quoted, argument or comment.
type writer struct{ strings.Builder }

func (f *ruleFile) write() []byte {
	var w writer
	f.header(&w)
	f.wall(&w)
	names := map[string]bool{}
	for _, d := range f.doors {
		if d.left {
			w.left(d, names)
		} else {
			w.door(d, unique(names, d.title))
		}
	}
	return hclwrite.Format([]byte(w.String()))
}

// wall writes the comments and settings for all doors.
func (f *ruleFile) wall(w *writer) {
	if len(f.logs) > 0 {
		w.WriteByte('\n')
		w.comment("", "%s: knockwall logs to the journal and not to a file. Read it with: journalctl -u knockwall", strings.Join(f.logs, ", "))
	}
	for _, note := range f.notes {
		w.WriteByte('\n')
		w.comment("", "%s", note)
	}
	if f.interfaces != "" {
		w.WriteByte('\n')
		w.comment("", "knockd listened on this interface only, and here all doors guard only this one. "+elsewhereOpen+
			" Without this block the doors guard all interfaces but lo. Only one wall block is allowed: if another file has one, write this line there.")
		fmt.Fprintf(w, "wall {\ninterfaces = [%s]\n}\n", quoted(f.interfaces))
	}
}

func (w *writer) door(d *door, name string) {
	w.WriteByte('\n')
	if name != d.title {
		w.comment("", "[%s], %s", d.title, d.place())
	}
	for _, note := range d.notes {
		w.comment("", "%s", note)
	}
	w.block(d, name)
}

// block writes the door without comments.
func (w *writer) block(d *door, name string) {
	fmt.Fprintf(w, "door %s {\n", quoted(name))
	if len(d.ports) > 0 {
		fmt.Fprintf(w, "ports = %s\n", portText(d.ports))
	}
	w.knocks("sequence", d.sequence)
	if d.oneTime != "" {
		fmt.Fprintf(w, "one_time_sequences = %s\n", quoted(d.oneTime))
	}
	w.duration("seq_timeout", d.seqTimeout)
	w.duration("window", d.window)
	w.knocks("close_sequence", d.closeSequence)
	w.list("tcp_flags", d.flags)
	if d.device != "" {
		w.list("interfaces", []string{d.device})
	}
	w.list("to", d.to)
	w.command("on_open", d.onOpen)
	w.command("on_close", d.onClose)
	if o := d.otp; o != nil {
		fmt.Fprintf(w, "\notp {\nport = %s\nopen_secret = %s\nclose_secret = %s\n}\n",
			quoted(o.port.String()), quoted(o.open), quoted(o.close))
	}
	w.WriteString("}\n")
}

// left writes why a door is left out, and the door that is proposed instead. It writes
// nothing if the door is now part of another.
func (w *writer) left(d *door, names map[string]bool) {
	if len(d.notes) == 0 {
		return
	}
	w.WriteByte('\n')
	w.comment("", "[%s], %s", d.title, d.place())
	for _, note := range d.notes {
		w.comment("", "%s", note)
	}
	if d.proposed {
		var block writer
		block.block(d, unique(names, d.title))
		for line := range strings.Lines(string(hclwrite.Format([]byte(block.String())))) {
			w.WriteString(strings.TrimSuffix("# "+line, " "))
		}
	}
}

func (w *writer) knocks(name string, steps []packet.Port) {
	if len(steps) > 0 {
		fmt.Fprintf(w, "%s = %s\n", name, knocks(steps))
	}
}

func (w *writer) duration(name string, d time.Duration) {
	if d > 0 {
		fmt.Fprintf(w, "%s = %s\n", name, quoted(duration(d)))
	}
}

func (w *writer) list(name string, items []string) {
	if len(items) == 0 {
		return
	}
	var all []string
	for _, item := range items {
		all = append(all, quoted(item))
	}
	fmt.Fprintf(w, "%s = [%s]\n", name, strings.Join(all, ", "))
}

func (w *writer) command(name string, c *command) {
	if c == nil {
		return
	}
	var words []string
	for _, word := range c.arguments() {
		words = append(words, argument(word))
	}
	fmt.Fprintf(w, "\n%s {\ncommand = [%s]\n}\n", name, strings.Join(words, ", "))
}

// portText formats ports for a rule file. A single TCP port is a plain number.
func portText(ports []packet.PortRange) string {
	var all []string
	for _, r := range ports {
		if r.First == r.Last && r.Protocol == packet.TCP {
			all = append(all, strconv.Itoa(int(r.First)))
		} else {
			all = append(all, quoted(r.String()))
		}
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func knocks(steps []packet.Port) string {
	var ports []packet.PortRange
	for _, s := range steps {
		ports = append(ports, packet.PortRange{First: s.Number, Last: s.Number, Protocol: s.Protocol})
	}
	return portText(ports)
}

// duration formats a duration in the largest unit that divides it.
func duration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// quoted returns text as an HCL string that evaluates to the same text.
func quoted(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

// argument returns an argument of a command as an HCL string, with ${source} in place of
// the placeholder.
func argument(word string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, text := range strings.Split(word, placeholder) {
		if i > 0 {
			b.WriteString("${source}")
		}
		text = strings.TrimSuffix(strings.TrimPrefix(quoted(text), `"`), `"`)
		if strings.HasSuffix(text, "$") {
			text = text[:len(text)-1] + `\u0024` // $${ would be a literal ${
		}
		b.WriteString(text)
	}
	b.WriteByte('"')
	return b.String()
}

// columns is the width of comments.
const columns = 78

// comment writes text as a wrapped comment. It escapes the text, which may be untrusted.
func (w *writer) comment(indent, format string, a ...any) {
	words := strings.Join(strings.Fields(printable.Escape(fmt.Sprintf(format, a...))), " ")
	for _, line := range printable.Wrap(words, columns-len("#"+indent+" ")) {
		w.WriteString(strings.TrimSuffix("#"+indent+" "+line, " ") + "\n")
	}
}

// longestName is the maximum length of a door's name.
const longestName = 32

// unique makes a valid door name from a title, different from all taken names. It is a
// letter, then letters, digits, hyphens and underscores.
func unique(taken map[string]bool, title string) string {
	var b strings.Builder
	for _, r := range title {
		switch {
		case r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '-'):
			b.WriteRune(r)
		case !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	base := strings.Trim(b.String(), "-")
	if base == "" || !unicode.IsLetter(rune(base[0])) {
		base = strings.TrimSuffix("door-"+base, "-")
	}
	base = base[:min(len(base), longestName)]
	name := base
	for i := 2; taken[name]; i++ {
		suffix := "-" + strconv.Itoa(i)
		name = base[:min(len(base), longestName-len(suffix))] + suffix
	}
	taken[name] = true
	return name
}

// allPorts returns the ports that the doors guard, with or without those of doors that guard
// every port.
func (f *ruleFile) allPorts(every bool) []packet.PortRange {
	var ports []packet.PortRange
	for _, d := range f.doors {
		if !d.left && (every || d.opened == nil || !d.opened.every) {
			ports = slices.Concat(ports, d.ports)
		}
	}
	return distinct(ports)
}
