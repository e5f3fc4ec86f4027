package ruleset

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/packet"
)

// Change is what a reload has changed at one door, or at the whole wall.
type Change struct {
	Door string `json:"door,omitempty"` // "": the whole wall
	Kind Kind   `json:"change"`
	// What has sentences, without secrets: what a changed door has now, or which ports an
	// added or removed door is about.
	What []string `json:"what"`
}

// Kind is the kind of a change.
type Kind string

// The kinds.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// Changes returns what differs from a former configuration: the wall and with whom it is
// shared, then the doors in their order, then those that are gone.
func (c *Config) Changes(former *Config) []Change {
	all := []Change{}
	if what := append(c.Wall.changes(&former.Wall), c.Share.changes(former.Share)...); what != nil {
		all = append(all, Change{Kind: Changed, What: what})
	}
	for i := range c.Doors {
		d := &c.Doors[i]
		was := former.Door(d.Name)
		if was == nil {
			all = append(all, Change{d.Name, Added, []string{d.purpose("it guards ", "it only runs commands")}})
		} else if what := d.changes(was); what != nil {
			all = append(all, Change{d.Name, Changed, what})
		}
	}
	for i := range former.Doors {
		if was := &former.Doors[i]; c.Door(was.Name) == nil {
			all = append(all, Change{was.Name, Removed, []string{was.purpose("it no longer guards ", "it no longer runs commands")}})
		}
	}
	return all
}

// purpose says what becomes of the ports of a door, or of its commands if it has no ports.
func (d *Door) purpose(ports, commands string) string {
	if len(d.Ports) == 0 {
		return commands
	}
	return ports + texts(d.Ports)
}

func (w *Wall) changes(was *Wall) (c method.Changes) {
	c.Value("table", was.Table, w.Table)
	c.Value("nflog_group", was.LogGroup, w.LogGroup)
	c.Value("queue", was.Queue, w.Queue)
	c.Value("interfaces", interfacesText(was.Interfaces), interfacesText(w.Interfaces))
	c.Value("trusted", texts(was.Trusted), texts(w.Trusted))
	c.Value("on_stop", was.OnStop, w.OnStop)
	c.Value("hold", was.Hold, w.Hold)
	c.Value("reorder", was.Reorder, w.Reorder)
	c.Value("max_sources", was.MaxSources, w.MaxSources)
	c.Value("max_windows", was.MaxWindows, w.MaxWindows)
	c.Value("identity", was.identity(), w.identity())
	return c
}

// identity returns the host's public identity, "" if it has none.
func (w *Wall) identity() string {
	if w.Identity == nil {
		return ""
	}
	return w.Identity.Public().String()
}

// changes also says what to do with the companion, which reads the block only when it starts.
// It may be called on nil, and with nil.
func (s *Share) changes(was *Share) (c method.Changes) {
	switch {
	case s == nil && was == nil:
		return nil
	case was == nil:
		return method.Changes{fmt.Sprintf("a share block, with the group %s: start knockwall-share to share windows", s.Group)}
	case s == nil:
		return method.Changes{"no share block any more: stop knockwall-share"}
	}
	c.Value("share: group", was.Group, s.Group)
	c.Value("share: name", cmp.Or(was.Name, "the host's own"), cmp.Or(s.Name, "the host's own"))
	c.Value("share: servers", strings.Join(was.Servers, ", "), strings.Join(s.Servers, ", "))
	c.Value("share: doors", was.doorsText(), s.doorsText())
	c.Value("share: credentials", was.Credentials, s.Credentials)
	c.Value("share: nkey", was.NKey, s.NKey)
	c.Value("share: tls: ca", was.CA, s.CA)
	c.Value("share: tls: cert", was.Cert, s.Cert)
	c.Value("share: tls: key", was.Key, s.Key)
	if c != nil {
		c = append(c, "share: restart knockwall-share, which reads the block when it starts")
	}
	return c
}

func (s *Share) doorsText() string {
	if s.Doors == nil {
		return "all"
	}
	return strings.Join(s.Doors, ", ")
}

func (d *Door) changes(was *Door) (c method.Changes) {
	c.Value("ports", texts(was.Ports), texts(d.Ports))
	c = append(c, d.methodChanges(was)...)
	c.Hidden("close_sequence", slices.Equal(was.CloseSequence, d.CloseSequence))
	c.Value("seq_timeout", was.SequenceTimeout, d.SequenceTimeout)
	c.Value("window", was.Window, d.Window)
	c.Value("tcp_flags", was.Flags, d.Flags)
	c.Value("max_connections", was.MaxConnections, d.MaxConnections)
	c.Value("closed", was.Closed, d.Closed)
	c.Value("on_failure", was.OnFailure, d.OnFailure)
	c.Value("interfaces", interfacesText(was.Interfaces), interfacesText(d.Interfaces))
	c.Value("to", was.toText(), d.toText())
	c.Value("trusted", texts(was.Trusted), texts(d.Trusted))
	c.Value("source_prefix", prefixText(was.SourcePrefix), prefixText(d.SourcePrefix))
	c.Value("penalty_prefix", prefixText(was.PenaltyPrefix), prefixText(d.PenaltyPrefix))
	c.Value("udp_timeout", was.UDPTimeout, d.UDPTimeout)
	c.Hidden("traps", was.TrapCount == d.TrapCount && slices.Equal(was.TrapList, d.TrapList))
	c.Value("penalty", was.Penalty, d.Penalty)
	c.Hidden("on_open", was.OnOpen.isLike(d.OnOpen))
	c.Hidden("on_close", was.OnClose.isLike(d.OnClose))
	return c
}

// methodChanges returns what differs in what opens the door.
func (d *Door) methodChanges(was *Door) (c method.Changes) {
	of := func(d *Door, name string) method.Method {
		i := slices.IndexFunc(d.Methods, func(m method.Method) bool { return m.Name() == name })
		if i < 0 {
			return nil
		}
		return d.Methods[i]
	}
	for _, m := range d.Methods {
		if before := of(was, m.Name()); before != nil {
			c = append(c, m.Changes(before)...)
		} else {
			c = append(c, m.Name()+" opens it now")
		}
	}
	for _, m := range was.Methods {
		if of(d, m.Name()) == nil {
			c = append(c, m.Name()+" no longer opens it")
		}
	}
	return c
}

func interfacesText(patterns []string) string {
	if len(patterns) == 0 {
		return "all but lo"
	}
	return strings.Join(patterns, ", ")
}

func (d *Door) toText() string {
	if len(d.To) == 0 {
		return "this host's own addresses"
	}
	return texts(d.To)
}

// texts joins values for a sentence.
func texts[T fmt.Stringer](values []T) string {
	var all []string
	for _, v := range values {
		all = append(all, v.String())
	}
	return strings.Join(all, ", ")
}

func prefixText(p packet.SourcePrefix) string {
	return fmt.Sprintf("{ ipv4 = %d, ipv6 = %d }", p.IPv4, p.IPv6)
}

// String returns the flags as rule files have them.
func (f FlagMatch) String() string {
	var names []string
	for _, name := range slices.SortedFunc(maps.Keys(flagNames), func(a, b string) int { return cmp.Compare(flagNames[a], flagNames[b]) }) {
		switch flag := flagNames[name]; {
		case f.Value&flag != 0:
			names = append(names, name)
		case f.Mask&flag != 0:
			names = append(names, "!"+name)
		}
	}
	return strings.Join(names, ", ")
}

// isLike reports whether both commands are the same, or both are missing.
func (c *Command) isLike(o *Command) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.Timeout == o.Timeout && slices.EqualFunc(c.Arguments, o.Arguments, slices.Equal)
}
