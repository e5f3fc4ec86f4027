package ruleset

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
)

// absent reports whether an optional attribute is missing or null.
func absent(e hcl.Expression) bool {
	if _, written := e.(hclsyntax.Expression); !written {
		return true // gohcl puts another kind of expression in place of a missing attribute
	}
	literal, ok := e.(*hclsyntax.LiteralValueExpr)
	return ok && literal.Val.IsNull()
}

// plain reports whether an expression is a literal value, which needs no evaluation.
func plain(e hcl.Expression) bool {
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return true
	case *hclsyntax.TemplateExpr:
		return !slices.ContainsFunc(e.Parts, func(part hclsyntax.Expression) bool { return !plain(part) })
	case *hclsyntax.UnaryOpExpr:
		number, ok := e.Val.(*hclsyntax.LiteralValueExpr)
		return ok && e.Op == hclsyntax.OpNegate && number.Val.Type() == cty.Number
	case *hclsyntax.ObjectConsKeyExpr:
		return hcl.ExprAsKeyword(e) != "" || plain(e.Wrapped)
	}
	return false
}

// value returns the text of a literal string or number. It evaluates nothing else, as an
// expression of a few bytes can take years to evaluate.
func (l *Loaded) value(e hcl.Expression) (s string, ok bool) {
	if _, said := e.(*hclsyntax.ExprSyntaxError); said {
		return "", false
	}
	if _, err := hcl.ExprList(e); err == nil {
		l.failAt(e, "List instead of one value", "Write one value, without [ and ].")
		return "", false
	}
	if !plain(e) {
		l.failAt(e, "Not a plain value", "Write a number, or text in quotes"+l.suggest(e, ": %q.", "."))
		return "", false
	}
	v, diags := e.Value(nil)
	l.foreign(diags)
	switch {
	case diags.HasErrors(), !v.IsKnown(): // HCL returns an unknown value where it could not read one
		return "", false
	case v.IsNull():
	case v.Type() == cty.String:
		return v.AsString(), true
	case v.Type() == cty.Number:
		// A number of a few bytes, such as 1e999999, can have millions of digits.
		n, _ := v.AsBigFloat().Float64()
		if math.Abs(n) >= 1e15 {
			return strconv.FormatFloat(n, 'g', -1, 64), true
		}
		return strconv.FormatFloat(n, 'f', -1, 64), true
	}
	l.failAt(e, "Not a plain value", "Write a number, or text in quotes.")
	return "", false
}

// bare matches text that lacks only its quotes or brackets.
var bare = regexp.MustCompile(`^[A-Za-z0-9_.:/!"-]{1,40}$`)

// suggest returns the format with the source text of the expression, or otherwise if that
// text is not bare.
func (l *Loaded) suggest(e hcl.Expression, format, otherwise string) string {
	at := e.Range()
	if shown := l.shownText(at.Filename); at.CanSliceBytes(shown) {
		if written := string(at.SliceBytes(shown)); bare.MatchString(written) {
			return fmt.Sprintf(format, written)
		}
	}
	return otherwise
}

func (l *Loaded) text(e hcl.Expression, to *string) {
	if absent(e) {
		return
	}
	if s, ok := l.value(e); ok {
		*to = s
	}
}

// number reads a whole number from least to most. what is the text of the error, with verbs
// for least and most.
func number[N int | uint16](l *Loaded, e hcl.Expression, to *N, least, most int, what string) {
	if absent(e) {
		return
	}
	s, ok := l.value(e)
	if !ok {
		return
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		l.failAt(e, "Not a whole number", fmt.Sprintf(what, least, most))
	case n < least || n > most:
		l.failAt(e, "Number out of range", fmt.Sprintf(what, least, most))
	default:
		*to = N(n)
	}
}

func choose[T ~string](l *Loaded, e hcl.Expression, to *T, first, second T) {
	if absent(e) {
		return
	}
	switch s, ok := l.value(e); {
	case !ok:
	case T(s) == first, T(s) == second:
		*to = T(s)
	default:
		l.failAt(e, "Not one of the choices", fmt.Sprintf("Write %q or %q.", first, second))
	}
}

func (l *Loaded) duration(e hcl.Expression, to *time.Duration, least, most time.Duration) {
	if absent(e) {
		return
	}
	s, ok := l.value(e)
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		l.failAt(e, "Not a duration", `A duration is a number with its unit, in quotes: "200ms", "5s", "1m30s" or "2h".`)
	case d < least || d > most:
		l.failAt(e, "Duration out of range", fmt.Sprintf("Write a duration from %s to %s.", printable.Time(least), printable.Time(most)))
	default:
		*to = d
	}
}

// list reads an optional list of strings and numbers. It calls item with the text of each,
// and with its expression for diagnostics. It returns the number of elements, and false if
// there is no list.
func (l *Loaded) list(e hcl.Expression, item func(hcl.Expression, string)) (n int, ok bool) {
	if absent(e) {
		return 0, false
	}
	elements, diags := hcl.ExprList(e)
	if diags.HasErrors() {
		if _, said := e.(*hclsyntax.ExprSyntaxError); !said {
			l.failAt(e, "Not a list", "Write a list in brackets, even for one value"+l.suggest(e, ": [%s].", "."))
		}
		return 0, false
	}
	for _, element := range elements {
		if s, ok := l.value(element); ok {
			item(element, s)
		}
	}
	return len(elements), true
}

// isRead reports whether all of a block was read. Otherwise what it lacks may be in the part
// of the file that HCL left out after a syntax error, or have a misspelt name. That error was
// reported, and is the one to correct.
func (l *Loaded) isRead(block hcl.Range) bool {
	return l.broken[block.Filename] == nil && !l.misspelt[block]
}

// lacks reports whether a block lacks an attribute that it needs. It fails if the block does
// and was read.
func (l *Loaded) lacks(e hcl.Expression, block hcl.Range, summary, detail string) bool {
	if absent(e) && l.isRead(block) {
		l.fail(summary, detail, &block)
	}
	return absent(e)
}

func (l *Loaded) ports(r *rawDoor) []packet.PortRange {
	ports, n, ok := l.portList(r.Ports, nil)
	if absent(r.Ports) && l.isRead(r.Range) && r.OnOpen == nil || ok && n == 0 {
		l.fail("No ports", `A door needs ports to guard: ports = [22], or ["51820/udp"], or ["8000-8010/tcp"]. `+
			"A door without ports needs an on_open block, whose command runs when the door opens.", &r.Range)
	}
	return ports
}

// portList reads ports and port ranges, and calls check with each if check is not nil. It
// returns the number of elements, and false if there is no list.
func (l *Loaded) portList(e hcl.Expression, check func(hcl.Expression, packet.PortRange)) (ports []packet.PortRange, n int, ok bool) {
	n, ok = l.list(e, func(e hcl.Expression, s string) {
		r, err := packet.ParsePortRange(s)
		if err != nil {
			l.failAt(e, "Not a port", sentence(err))
			return
		}
		if check != nil {
			check(e, r)
		}
		ports = append(ports, r)
	})
	return packet.MergeRanges(ports), n, ok
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
			l.failAt(e, "Not a TCP flag", `The flags are fin, syn, rst, psh, ack and urg. Write "!ack" for a flag that must not be set.`)
		case m.Mask&flag != 0:
			l.failAt(e, "Flag given twice", fmt.Sprintf("The list already has %s, with or without an exclamation mark.", name))
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

// addresses reads addresses and prefixes, and leaves out those that another contains. If
// empty is not "", an empty list is an error with that text.
func (l *Loaded) addresses(e hcl.Expression, empty string) []netip.Prefix {
	return l.prefixes(e, empty, sentence)
}

// prefixes does what addresses does. say makes the text of an error.
func (l *Loaded) prefixes(e hcl.Expression, empty string, say func(error) string) []netip.Prefix {
	var all []netip.Prefix
	n, ok := l.list(e, func(e hcl.Expression, s string) {
		p, err := parsePrefix(s)
		if err != nil {
			l.failAt(e, "Not an address", say(err))
			return
		}
		all = append(all, p)
	})
	if ok && n == 0 && empty != "" {
		l.failAt(e, "No addresses", empty)
	}
	return distinct(all)
}

// distinct sorts prefixes, and leaves out those that another contains.
func distinct(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var kept []netip.Prefix
	for _, p := range all {
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
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
		return p, fmt.Errorf("%q is an IPv4-mapped IPv6 address: write %s", s, p.Addr().Unmap())
	}
	if p.Bits() == 0 {
		return p, fmt.Errorf("%q contains all addresses: write smaller prefixes", s)
	}
	return p.Masked(), nil
}

func (l *Loaded) sourcePrefix(e hcl.Expression, to *packet.SourcePrefix) {
	if absent(e) {
		return
	}
	pairs, diags := hcl.ExprMap(e)
	if _, said := e.(*hclsyntax.ExprSyntaxError); said {
		return
	}
	if diags.HasErrors() {
		l.failAt(e, "Not a source prefix", "Write { ipv4 = 32, ipv6 = 64 }, or one of the two.")
		return
	}
	for _, pair := range pairs {
		switch key, ok := l.value(pair.Key); {
		case !ok:
		case key == "ipv4":
			number(l, pair.Value, &to.IPv4, 1, 32, "The length of an IPv4 prefix is a whole number from %d to %d.")
		case key == "ipv6":
			number(l, pair.Value, &to.IPv6, 1, 128, "The length of an IPv6 prefix is a whole number from %d to %d.")
		default:
			l.failAt(pair.Key, "Not a source prefix", "The keys are ipv4 and ipv6.")
		}
	}
}

// penaltyPrefix reads the prefix of sources that are trapped together. A length that is not
// given is the default, or that of source_prefix if that is shorter. With a longer penalty
// prefix, the rest of a trapped source could go on knocking.
func (l *Loaded) penaltyPrefix(e hcl.Expression, d *Door) {
	d.PenaltyPrefix.IPv4 = min(d.PenaltyPrefix.IPv4, d.SourcePrefix.IPv4)
	d.PenaltyPrefix.IPv6 = min(d.PenaltyPrefix.IPv6, d.SourcePrefix.IPv6)
	l.sourcePrefix(e, &d.PenaltyPrefix)
	if d.PenaltyPrefix.IPv4 > d.SourcePrefix.IPv4 || d.PenaltyPrefix.IPv6 > d.SourcePrefix.IPv6 {
		l.failAt(e, "Penalty narrower than a source", fmt.Sprintf("The door treats a /%d of IPv4 and a /%d of IPv6 as one source (source_prefix). "+
			"A penalty applies to at least one source: give penalty_prefix the same lengths or shorter ones.", d.SourcePrefix.IPv4, d.SourcePrefix.IPv6))
	}
}

// sentence returns the text of an error with a capital and a full stop.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
