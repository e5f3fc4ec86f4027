package doctor

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

type rawRule struct {
	chain *chain
	exprs []expr.Any
}

// dump reads the rules of all chains, up to a limit. The nftables library has no limit,
// and silently omits expressions that it does not know.
func (f *firewall) dump() (all []rawRule, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetReadBuffer(1 << 20); err != nil {
		return nil, err
	}
	var last *nftables.Table
	for _, c := range f.chains { // by table
		if last != nil && last.Name == c.Table.Name && last.Family == c.Table.Family {
			continue
		}
		last = c.Table
		rules, err := f.dumpTable(conn, last, maxRules-len(all))
		if err != nil {
			return nil, err
		}
		all = append(all, rules...)
		if f.partly != nil {
			break
		}
	}
	return all, nil
}

// dumpTable reads at most so many rules of a table. With more, the rest of the dump is still
// to be read from the connection.
func (f *firewall) dumpTable(conn *netlink.Conn, t *nftables.Table, most int) (all []rawRule, err error) {
	const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(t.Name), 0)}})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: subsystem | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(t.Family), 0, 0, 0}, name...), // after struct nfgenmsg
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
		if seen++; seen > most {
			f.partly = errTooLarge
			// Do not wait for the rest of the dump.
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

// attributeType is the mask of an attribute's type without its flags: NLA_TYPE_MASK of
// linux/netlink.h.
const attributeType = 1<<14 - 1

// text returns a string of netlink without its terminating zero.
func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// parseExpression parses an expression. It returns nil for a kind that it does not know.
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
		proxy.RegPort, err = number(data, expr.NFTA_TPROXY_REG_PORT) // the library does not parse it
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

// number returns an attribute's value of 32 bits, or 0 if there is no such attribute.
func number(data []byte, attribute uint16) (uint32, error) {
	attributes, err := netlink.UnmarshalAttributes(data)
	for _, a := range attributes {
		if a.Type&attributeType == attribute && len(a.Data) == 4 {
			return binary.BigEndian.Uint32(a.Data), err
		}
	}
	return 0, err
}

// expressions are the expressions that [parseRule] understands.
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
