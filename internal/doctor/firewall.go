package doctor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/printable"
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
