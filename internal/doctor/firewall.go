package doctor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// The limits of what is read of the firewall. A cluster's may be of any size.
const (
	maxRules = 4096 // read
	maxSteps = 4096 // taken from chain to chain
	maxDepth = 16   // which is nftables' own limit of jumps
)

var (
	errRoot      = errors.New("it takes root to look at the firewall")
	errTooLarge  = fmt.Errorf("the firewall has more than %d rules, and not all of them were looked at", maxRules)
	errNotPlain  = errors.New("rules of NAT whose target depends on more than the port were not understood, so that it is unknown where they lead")
	errTooManyIn = errors.New("the firewall's chains lead to each other in too many ways for all of them to be followed")
)

// firewall are the rules of nftables on this host, those of iptables-nft among them,
// but for the wall's own.
type firewall struct {
	chains     []*chain
	flowtables []*nftables.Flowtable
	partly     error // why it is not all
}

type chain struct {
	*nftables.Chain
	rules []rule
}

// where names the chain as its owner does.
func (c *chain) where() string {
	return fmt.Sprintf("table %s %s, chain %s", familyName(c.Table.Family), printable(c.Table.Name), printable(c.Name))
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprint(f)
}

// readFirewall reads the tables but one.
func readFirewall(but string) (f *firewall, err error) {
	const tries = 3 // somebody may change it meanwhile
	for range tries {
		if f, err = readTables(but); err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EPERM) {
			return nil, errRoot
		}
	}
	return nil, fmt.Errorf("reading the firewall: %w", err)
}

func readTables(but string) (*firewall, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	defer conn.CloseLasting()
	all, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	f := &firewall{}
	var last *nftables.Table
	for _, c := range all {
		if c.Table.Name == but && c.Table.Family == nftables.TableFamilyINet {
			continue
		}
		f.chains = append(f.chains, &chain{Chain: c})
		if last != nil && last.Name == c.Table.Name && last.Family == c.Table.Family {
			continue // they come table by table
		}
		last = c.Table
		offloads, err := conn.ListFlowtables(last)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return nil, err
		}
		f.flowtables = append(f.flowtables, offloads...)
	}
	raw, err := f.dump()
	if err != nil {
		return nil, err
	}
	for _, r := range raw { // when no dump is under way any more
		rules, err := parseRule(r.exprs, func(set string) ([]nftables.SetElement, error) {
			return conn.GetSetElements(&nftables.Set{Table: r.chain.Table, Name: set})
		})
		if err != nil {
			return nil, err
		}
		r.chain.rules = append(r.chain.rules, rules...)
	}
	return f, nil
}

type rawRule struct {
	chain *chain
	exprs []expr.Any
}

// dump reads the rules of all chains, as far as they are not too many. The library would
// read however many there are, and leave out without a word what it does not know.
func (f *firewall) dump() (all []rawRule, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(1 << 20); err != nil {
		return nil, err
	}
	const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
	if _, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: subsystem | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, 4), // struct nfgenmsg: of every family
	}); err != nil {
		return nil, err
	}
	seen := 0
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			return nil, err
		}
		if len(m.Data) < 4 {
			continue
		}
		if seen++; seen > maxRules {
			f.partly = errTooLarge
			// What is left is not to be waited for.
			return all, conn.SetReadDeadline(time.Unix(1, 0))
		}
		r, err := f.rawRule(m.Data)
		if err != nil {
			return nil, err
		}
		if r.chain != nil {
			all = append(all, r)
		}
	}
	return all, nil
}

func (f *firewall) rawRule(message []byte) (r rawRule, err error) {
	attributes, err := netlink.UnmarshalAttributes(message[4:])
	if err != nil {
		return r, err
	}
	family := message[0]
	table := &nftables.Table{Family: nftables.TableFamily(family)}
	var name string
	for _, a := range attributes {
		switch a.Type & attributeType {
		case unix.NFTA_RULE_TABLE:
			table.Name = text(a.Data)
		case unix.NFTA_RULE_CHAIN:
			name = text(a.Data)
		case unix.NFTA_RULE_EXPRESSIONS:
			elements, err := netlink.UnmarshalAttributes(a.Data)
			if err != nil {
				return r, err
			}
			for _, e := range elements {
				parsed, err := parseExpression(family, e.Data)
				if err != nil {
					return r, err
				}
				r.exprs = append(r.exprs, parsed)
			}
		}
	}
	r.chain = f.chain(table, name)
	return r, nil
}

// attributeType is what of an attribute's type is no flag: NLA_TYPE_MASK of linux/netlink.h.
const attributeType = 1<<14 - 1

// text returns what netlink ends with a zero.
func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// parseExpression returns nil for one that nothing is known of.
func parseExpression(family byte, b []byte) (e expr.Any, err error) {
	attributes, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil, err
	}
	var name string
	var data []byte
	for _, a := range attributes {
		switch a.Type & attributeType {
		case unix.NFTA_EXPR_NAME:
			name = text(a.Data)
		case unix.NFTA_EXPR_DATA:
			data = a.Data
		}
	}
	make, known := expressions[name]
	if !known {
		return nil, nil
	}
	e = make()
	if len(data) == 0 {
		return e, nil
	}
	if proxy, ok := e.(*expr.TProxy); ok {
		proxy.RegPort, err = number(data, expr.NFTA_TPROXY_REG_PORT) // the library cannot
		return e, err
	}
	if err := expr.Unmarshal(family, data, e); err != nil {
		return nil, err
	}
	if i, ok := e.(*expr.Immediate); ok && i.Register == unix.NFT_REG_VERDICT {
		e = &expr.Verdict{}
		err = expr.Unmarshal(family, data, e)
	}
	return e, err
}

// number returns a number among attributes, and 0 if there is none.
func number(data []byte, attribute uint16) (uint32, error) {
	attributes, err := netlink.UnmarshalAttributes(data)
	for _, a := range attributes {
		if a.Type&attributeType == attribute && len(a.Data) == 4 {
			return binary.BigEndian.Uint32(a.Data), err
		}
	}
	return 0, err
}

// expressions are those that [parseRule] takes.
var expressions = map[string]func() expr.Any{
	"bitwise":   func() expr.Any { return &expr.Bitwise{} },
	"cmp":       func() expr.Any { return &expr.Cmp{} },
	"counter":   func() expr.Any { return &expr.Counter{} },
	"ct":        func() expr.Any { return &expr.Ct{} },
	"fib":       func() expr.Any { return &expr.Fib{} },
	"immediate": func() expr.Any { return &expr.Immediate{} },
	"log":       func() expr.Any { return &expr.Log{} },
	"lookup":    func() expr.Any { return &expr.Lookup{} },
	"match":     func() expr.Any { return &expr.Match{} },
	"meta":      func() expr.Any { return &expr.Meta{} },
	"nat":       func() expr.Any { return &expr.NAT{} },
	"notrack":   func() expr.Any { return &expr.Notrack{} },
	"payload":   func() expr.Any { return &expr.Payload{} },
	"range":     func() expr.Any { return &expr.Range{} },
	"redir":     func() expr.Any { return &expr.Redir{} },
	"reject":    func() expr.Any { return &expr.Reject{} },
	"target":    func() expr.Any { return &expr.Target{} },
	"tproxy":    func() expr.Any { return &expr.TProxy{} },
}

// traffic is what a rule is about, as far as the protocol and the port tell.
type traffic struct {
	protocol packet.Protocol // 0: any
	ports    []span          // nil: all
	none     bool            // nothing that could come to a door
}

// span is a run of ports.
type span struct{ first, last uint16 }

// and returns what is in both.
func (t traffic) and(other traffic) traffic {
	both := traffic{protocol: t.protocol, ports: t.ports, none: t.none || other.none}
	if both.protocol == 0 {
		both.protocol = other.protocol
	}
	both.none = both.none || other.protocol != 0 && other.protocol != both.protocol
	switch {
	case t.ports == nil:
		both.ports = other.ports
	case other.ports != nil:
		both.ports = []span{}
		for _, a := range t.ports {
			for _, b := range other.ports {
				if first, last := max(a.first, b.first), min(a.last, b.last); first <= last {
					both.ports = append(both.ports, span{first, last})
				}
			}
		}
		both.none = both.none || len(both.ports) == 0
	}
	return both
}

// rule is a rule of the firewall, as far as it is understood. One of nftables that looks
// up a map is several.
type rule struct {
	match   traffic
	narrow  bool // it asks for more than the match says
	old     bool // it is for connections that are known already, and no new ones
	verdict expr.VerdictKind
	chain   string  // where a jump leads
	leads   *target // where NAT leads
	untrack bool
}

// noVerdict is that of a rule after which the next one is asked.
const noVerdict = expr.VerdictContinue

// target is where NAT leads to.
type target struct {
	here    bool // this host, whatever its address
	silent  bool // and the packet keeps its addresses, so that nobody sees it later (TPROXY)
	address string
	ports   span // 0: that which it came to
	unknown bool
}

// loaded is what a register holds.
type loaded uint8

const (
	somethingElse loaded = iota
	theProtocol
	thePort
	theState
	theInterface
	theInterfaceName
)

// parser follows a rule's expressions.
type parser struct {
	rule
	holds    map[uint32]loaded
	values   map[uint32][]byte // immediate ones
	mask     []byte            // of the state
	base     uint32            // where the map's values are loaded
	elements []nftables.SetElement
	verdicts bool   // these are what they lead to
	spans    []span // of the elements
	lookUp   func(set string) ([]nftables.SetElement, error)
}

// word numbers registers by their 32 bits: NFT_REG32_00 of linux/netfilter/nf_tables.h is 8,
// and four of them are one of those that are numbered from 1.
func word(register uint32) uint32 {
	if register >= 8 {
		return register - 8
	}
	return (register - 1) * 4
}

func parseRule(exprs []expr.Any, lookUp func(set string) ([]nftables.SetElement, error)) ([]rule, error) {
	p := &parser{holds: map[uint32]loaded{}, values: map[uint32][]byte{}, lookUp: lookUp}
	p.verdict = noVerdict
	var all []rule
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Meta:
			p.loadMeta(e)
		case *expr.Payload:
			p.loadPayload(e)
		case *expr.Ct:
			if !e.SourceRegister {
				p.holds[word(e.Register)] = somethingElse
				if e.Key == expr.CtKeySTATE {
					p.holds[word(e.Register)] = theState
				}
			}
		case *expr.Fib: // "is it to this host" is what is asked, nearly always
			p.holds[word(e.Register)] = somethingElse
		case *expr.Immediate:
			p.values[word(e.Register)] = e.Data
		case *expr.Bitwise:
			p.mask = e.Mask
			what := somethingElse
			if p.holds[word(e.SourceRegister)] == theState {
				what = theState
			}
			p.holds[word(e.DestRegister)] = what
		case *expr.Cmp:
			p.compare(e)
		case *expr.Range:
			p.inRange(e)
		case *expr.Lookup:
			if err := p.look(e); err != nil {
				return nil, err
			}
		case *expr.Verdict:
			p.verdict, p.chain = e.Kind, e.Chain
		case *expr.Reject:
			p.verdict = expr.VerdictDrop
		case *expr.Notrack:
			p.untrack = true
		case *expr.Redir:
			all = append(all, p.redirected(e.RegisterProtoMin, 0, e.RegisterProtoMax, target{here: true})...)
		case *expr.NAT:
			if e.Type == expr.NATTypeDestNAT {
				all = append(all, p.redirected(e.RegProtoMin, e.RegAddrMin, e.RegProtoMax, target{})...)
			}
		case *expr.TProxy:
			all = append(all, p.redirected(e.RegPort, 0, 0, target{here: true, silent: true})...)
		case *expr.Match:
			p.matchXT(e)
		case *expr.Target:
			p.targetXT(e)
		default:
			p.narrow = true
		}
	}
	switch {
	case len(all) > 0:
		return all, nil
	case p.verdicts:
		for i, element := range p.elements {
			branch := p.rule
			branch.match = branch.match.and(traffic{ports: p.spansOf(i)})
			branch.verdict, branch.chain = verdictOf(element.Val)
			all = append(all, branch)
		}
		return all, nil
	}
	return []rule{p.rule}, nil
}

// verdictOf reads what a map leads to: NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN, which the
// library leaves as they are.
func verdictOf(data []byte) (kind expr.VerdictKind, chain string) {
	kind = noVerdict
	attributes, _ := netlink.UnmarshalAttributes(data)
	for _, a := range attributes {
		switch a.Type & attributeType {
		case unix.NFTA_VERDICT_CODE:
			if len(a.Data) == 4 {
				kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(a.Data)))
			}
		case unix.NFTA_VERDICT_CHAIN:
			chain = text(a.Data)
		}
	}
	return kind, chain
}

// spansOf returns the ports of an element; nil if its key is something else.
func (p *parser) spansOf(element int) []span {
	if p.spans == nil {
		return nil
	}
	return p.spans[element : element+1]
}

func (p *parser) loadMeta(e *expr.Meta) {
	if e.SourceRegister {
		return
	}
	what := somethingElse
	switch e.Key {
	case expr.MetaKeyL4PROTO:
		what = theProtocol
	case expr.MetaKeyIIFNAME:
		what = theInterfaceName
	case expr.MetaKeyIIF:
		what = theInterface
	}
	p.holds[word(e.Register)] = what
}

func (p *parser) loadPayload(e *expr.Payload) {
	if e.OperationType != expr.PayloadLoad {
		return
	}
	what := somethingElse
	switch {
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
		what = thePort
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 9 && e.Len == 1:
		what = theProtocol
	}
	p.holds[word(e.DestRegister)] = what
}

func (p *parser) compare(e *expr.Cmp) {
	is := e.Op == expr.CmpOpEq
	switch p.holds[word(e.Register)] {
	case theProtocol:
		if len(e.Data) > 0 && is {
			p.forProtocol(packet.Protocol(e.Data[0]))
			return
		}
	case thePort:
		if len(e.Data) == 2 {
			p.ports(portsBy(e.Op, uint16(e.Data[0])<<8|uint16(e.Data[1])))
			return
		}
	case theState: // & states != 0
		if e.Op == expr.CmpOpNeq && len(p.mask) > 0 {
			p.ofStates(uint32(p.mask[0]))
			return
		}
	case theInterface:
		if is && bytes.Equal(e.Data, binary.NativeEndian.AppendUint32(nil, loopback)) {
			p.match.none = true
			return
		}
	case theInterfaceName:
		if is && string(bytes.TrimRight(e.Data, "\x00")) == "lo" {
			p.match.none = true
			return
		}
	}
	p.narrow = true
}

// loopback is the index of every host's lo (LOOPBACK_IFINDEX of net/flow.h).
const loopback = 1

// stateNew is NF_CT_STATE_BIT(IP_CT_NEW) of linux/netfilter/nf_conntrack_common.h.
const stateNew = 1 << 3

func (p *parser) ofStates(mask uint32) { p.old = p.old || mask&stateNew == 0 }

func (p *parser) forProtocol(protocol packet.Protocol) {
	p.match = p.match.and(traffic{protocol: protocol, none: protocol != packet.TCP && protocol != packet.UDP})
}

func (p *parser) ports(spans []span) { p.match = p.match.and(traffic{ports: spans}) }

func portsBy(op expr.CmpOp, n uint16) []span {
	switch op {
	case expr.CmpOpEq:
		return []span{{n, n}}
	case expr.CmpOpGte:
		return []span{{n, 65535}}
	case expr.CmpOpLte:
		return []span{{0, n}}
	case expr.CmpOpGt:
		return between(int(n)+1, 65535)
	case expr.CmpOpLt:
		return between(0, int(n)-1)
	}
	return outside(n, n)
}

func between(first, last int) []span {
	if first > last {
		return []span{}
	}
	return []span{{uint16(first), uint16(last)}}
}

func outside(first, last uint16) []span {
	return append(between(0, int(first)-1), between(int(last)+1, 65535)...)
}

func (p *parser) inRange(e *expr.Range) {
	if p.holds[word(e.Register)] != thePort || len(e.FromData) != 2 || len(e.ToData) != 2 {
		p.narrow = true
		return
	}
	first, last := uint16(e.FromData[0])<<8|uint16(e.FromData[1]), uint16(e.ToData[0])<<8|uint16(e.ToData[1])
	if e.Op == expr.CmpOpNeq {
		p.ports(outside(first, last))
		return
	}
	p.ports(between(int(first), int(last)))
}

// look looks a port up in a set, or a map.
func (p *parser) look(e *expr.Lookup) error {
	what := p.holds[word(e.SourceRegister)]
	if what != thePort && !e.IsDestRegSet {
		p.narrow = true
		return nil
	}
	elements, err := p.lookUp(e.SetName)
	if err != nil {
		return err
	}
	var spans []span
	if what == thePort {
		elements, spans = runs(elements)
	} else {
		p.narrow = true
	}
	if !e.IsDestRegSet {
		if e.Invert {
			p.narrow = true
			return nil
		}
		p.ports(append([]span{}, spans...))
		return nil
	}
	if what == theState {
		elements = slices.DeleteFunc(elements, func(s nftables.SetElement) bool { return len(s.Key) == 0 || s.Key[0]&stateNew == 0 })
	}
	p.verdicts = e.DestRegister == unix.NFT_REG_VERDICT
	p.elements, p.spans, p.base = append([]nftables.SetElement{}, elements...), spans, word(e.DestRegister)
	return nil
}

// runs returns the elements of a set of ports that are no ends of others, and the ports
// that each is for.
func runs(elements []nftables.SetElement) (starts []nftables.SetElement, spans []span) {
	elements = slices.DeleteFunc(slices.Clone(elements), func(e nftables.SetElement) bool { return len(e.Key) < 2 })
	slices.SortStableFunc(elements, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key[:2], b.Key[:2]) })
	intervals := slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return e.IntervalEnd })
	spans = []span{}
	for i, e := range elements {
		if e.IntervalEnd {
			continue
		}
		first := uint16(e.Key[0])<<8 | uint16(e.Key[1])
		last := first
		if intervals {
			last = 65535
			if i+1 < len(elements) {
				last = uint16(elements[i+1].Key[0])<<8 | uint16(elements[i+1].Key[1]) - 1
			}
		}
		starts, spans = append(starts, e), append(spans, span{first, max(first, last)})
	}
	return starts, spans
}

// redirected returns the rule once for each place that it leads to: registers that are 0
// change nothing.
func (p *parser) redirected(port, address, lastPort uint32, to target) []rule {
	if p.elements == nil {
		return []rule{p.leadsTo(to, p.value(port, nil), p.value(address, nil), p.value(lastPort, nil), port, address)}
	}
	var all []rule
	for i, element := range p.elements {
		r := p.leadsTo(to, p.value(port, element.Val), p.value(address, element.Val), nil, port, address)
		if p.spans == nil {
			r.leads.unknown = true
		}
		r.match = r.match.and(traffic{ports: p.spansOf(i)})
		all = append(all, r)
	}
	return all
}

func (p *parser) leadsTo(to target, port, address, lastPort []byte, portFrom, addressFrom uint32) rule {
	r := p.rule
	switch {
	case portFrom == 0:
	case len(port) < 2:
		to.unknown = true
	default:
		to.ports.first = uint16(port[0])<<8 | uint16(port[1])
		to.ports.last = to.ports.first
		if len(lastPort) >= 2 {
			to.ports.last = uint16(lastPort[0])<<8 | uint16(lastPort[1])
		}
	}
	switch {
	case addressFrom == 0:
		to.here = true
	case len(address) >= 16:
		to.address = addressOf(address[:16])
	case len(address) >= 4:
		to.address = addressOf(address[:4])
	default:
		to.unknown = true
	}
	r.leads = &to
	return r
}

// value returns what a register holds: an immediate value, or a part of the map's.
func (p *parser) value(register uint32, mapped []byte) []byte {
	if register == 0 {
		return nil
	}
	w := word(register)
	if mapped != nil && w >= p.base && int(w-p.base)*4 < len(mapped) {
		return mapped[(w-p.base)*4:]
	}
	return p.values[w]
}

// walk goes through the rules that a chain leads to, each with all that was asked for on
// the way. It stops when visit says so.
func (f *firewall) walk(from *chain, visit func(c *chain, r rule)) error {
	steps := 0
	var follow func(c *chain, in rule, depth int)
	follow = func(c *chain, in rule, depth int) {
		for _, r := range c.rules {
			steps++
			if steps > maxSteps || depth > maxDepth {
				return
			}
			r.match = r.match.and(in.match)
			r.narrow, r.old = r.narrow || in.narrow, r.old || in.old
			if r.match.none {
				continue
			}
			visit(c, r)
			if r.verdict == expr.VerdictJump || r.verdict == expr.VerdictGoto {
				if next := f.chain(c.Table, r.chain); next != nil {
					follow(next, r, depth+1)
				}
			}
		}
	}
	follow(from, rule{}, 0)
	if steps > maxSteps {
		return errTooManyIn
	}
	return nil
}

func (f *firewall) chain(t *nftables.Table, name string) *chain {
	i := slices.IndexFunc(f.chains, func(c *chain) bool {
		return c.Name == name && c.Table.Name == t.Name && c.Table.Family == t.Family
	})
	if i < 0 {
		return nil
	}
	return f.chains[i]
}

// hooked returns the chains of IP that see packets at a hook.
func (f *firewall) hooked(at *nftables.ChainHook, kinds ...nftables.ChainType) (all []*chain) {
	for _, c := range f.chains {
		ip := c.Table.Family == nftables.TableFamilyINet || c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyIPv6
		if ip && c.Hooknum != nil && *c.Hooknum == *at && slices.Contains(kinds, c.Type) {
			all = append(all, c)
		}
	}
	return all
}
