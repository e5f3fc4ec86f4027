// Package lists is the method of sequences of which each opens the door once:
// one_time_sequences = "/path". Package onetime reads the list.
package lists

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/packet"
)

// Kind reads the attribute.
var Kind = method.Kind{Name: "one_time_sequences", Knocks: true, Attribute: read}

// List is the method.
type List struct{ File onetime.List }

func read(r method.Reader, _ *method.Door, e hcl.Expression) method.Method {
	name, ok := r.Value(e)
	if !ok {
		return nil
	}
	if !filepath.IsAbs(name) && !path.IsAbs(name) { // on this system or on Linux
		r.Fail(e, "Not an absolute path", "Write the whole path of the list, from / on.")
		return nil
	}
	m := &List{onetime.List{Path: name}}
	_, left, err := m.File.Next()
	if err == nil {
		err = m.File.Writable()
	}
	stock := method.Stock{Left: left}
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.Reviewing():
		r.Warn(e, "No list of sequences", "The daemon does not start without it. "+r.Explain(err, ""))
	case errors.Is(err, fs.ErrNotExist):
		r.Lack(e, "No list of sequences", "Make it: a sequence a line, such as 4113,27911:udp,1840. "+r.Explain(err, ""))
	case err != nil:
		r.Lack(e, "List of sequences that cannot be used", "The daemon has to read the list, and to cross out what is used. "+r.Explain(err, "rw"))
	case left == 0:
		r.Warn(e, "All sequences are used", "The door does not open for anybody. Add lines to the list, and reload.")
	case stock.IsLow():
		r.Warn(e, "Few sequences are left", fmt.Sprintf("Those that were not used: %d. Add lines to the list before the door is shut for good.", left))
	}
	return m
}

func (*List) Name() string          { return Kind.Name }
func (*List) Traits() method.Traits { return method.Traits{Consumes: true} }

// Ports returns none, as a list is changed while the daemon runs.
func (*List) Ports() (fixed, chosen []packet.PortRange) { return nil, nil }

func (*List) Describe(within time.Duration) string {
	return "the next of its sequences within " + within.String()
}

// Resolve returns the first sequence that was not used yet. If all were, its place has none.
func (m *List) Resolve(time.Time) (method.State, error) {
	line, left, err := m.File.Next()
	if err != nil {
		return method.State{Sequences: [][]packet.Port{nil}, Unread: true}, err
	}
	return method.State{
		Sequences: [][]packet.Port{line.Steps},
		Stock:     &method.Stock{Left: left, Of: m.File.Path},
	}.With(line), nil
}

// Use crosses the sequence out.
func (m *List) Use(s method.State, _ int, _ time.Time, _ method.Remember) (replay bool, err error) {
	line, _ := s.Own().(onetime.Line)
	err = m.File.Use(line)
	if errors.Is(err, onetime.ErrUsed) {
		return true, nil
	}
	return false, err
}

// Advise has nothing to say: what is in a list is its owner's to choose.
func (*List) Advise(method.Reader, []method.Door, int) {}
