package doctor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/printable"
)

// The limits for reading the firewall. A cluster's rules can be of any number.
const (
	maxRules = 4096 // rules to read
	maxSteps = 4096 // rules to visit while following chains
	maxDepth = 16   // jumps; the limit of nftables itself
)

var (
	errTooLarge  = fmt.Errorf("the firewall has more than %d rules, and doctor did not read the rest", maxRules)
	errNotPlain  = errors.New("the target of a NAT rule depends on more than the port, so doctor does not know where it leads")
	errTooManyIn = errors.New("the firewall's chains have too many jumps to follow all of them")
)

// firewall is the nftables rules of this host, including those of iptables-nft, without
// the wall's own table.
type firewall struct {
	chains     []*chain
	flowtables []*nftables.Flowtable
	partly     error // why the rules are incomplete, or nil
}

type chain struct {
	*nftables.Chain
	rules []rule
}

// where names the chain as `nft list ruleset` does.
func (c *chain) where() string {
	return fmt.Sprintf("table %s %s, chain %s", familyName(c.Table.Family), printable.Quote(c.Table.Name), printable.Quote(c.Name))
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

// readFirewall reads all tables except one of the family inet.
func readFirewall(but string) (f *firewall, err error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	defer conn.CloseLasting()
	const tries = 5 // the rules may change during a read
	for range tries {
		err = nft.Whole(conn, func() (err error) {
			f, err = readTables(conn, but)
			return err
		})
		if err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EPERM) {
			return nil, notPermitted("reading the firewall", err)
		}
	}
	return nil, fmt.Errorf("reading the firewall: %w", err)
}

func readTables(conn *nftables.Conn, but string) (*firewall, error) {
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
			continue // the kernel lists chains by table
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
	for _, r := range raw { // after the dump has ended
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

// walk visits the rules that a chain leads to. Each has the conditions of the jumps that
// lead to it. An error says that not all rules were visited.
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
			r.narrow, r.sources, r.local, r.old = r.narrow || in.narrow, r.sources || in.sources, r.local || in.local, r.old || in.old
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

// hooked returns the chains of ip, ip6 and inet tables at a hook.
func (f *firewall) hooked(at *nftables.ChainHook, kinds ...nftables.ChainType) (all []*chain) {
	for _, c := range f.chains {
		ip := c.Table.Family == nftables.TableFamilyINet || c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyIPv6
		if ip && c.Hooknum != nil && *c.Hooknum == *at && slices.Contains(kinds, c.Type) {
			all = append(all, c)
		}
	}
	return all
}
