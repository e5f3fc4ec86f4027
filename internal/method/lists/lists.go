// Package lists is the method of one-time sequences: one_time_sequences = "/path". Each
// sequence of the list opens the door once. Package onetime reads the list.
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
	"github.com/knockwall/knockwall/internal/printable"
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
		r.Fail(e, "Not an absolute path", "Write the absolute path of the list, which begins with /.")
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
		r.Lack(e, "No list of sequences", "Create the file with one sequence a line, such as 4113,27911:udp,1840. "+r.Explain(err, ""))
	case err != nil:
		r.Lack(e, "List of sequences that cannot be used", "The daemon has to read the list and to mark used sequences in it. "+r.Explain(err, "rw"))
	case left == 0:
		r.Warn(e, "All sequences are used", "Nobody can open the door by this list. Add lines to it, and reload.")
	case stock.IsLow():
		r.Warn(e, "Few sequences are left", fmt.Sprintf("Unused sequences: %d. Add lines to the list. When none is left, nobody can open the door by it.", left))
	}
	return m
}

func (*List) Name() string          { return Kind.Name }
func (*List) Traits() method.Traits { return method.Traits{Consumes: true} }

// Ports returns none, as the list may change while the daemon runs.
func (*List) Ports() (fixed, chosen []packet.PortRange) { return nil, nil }

func (*List) Describe(within time.Duration) string {
	return "the next of its sequences within " + printable.Time(within)
}

func (m *List) Changes(former method.Method) (c method.Changes) {
	c.Value("one_time_sequences", former.(*List).File.Path, m.File.Path)
	return c
}

// Resolve returns the first unused sequence. If there is none, its place is nil.
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

// Use marks the sequence as used.
func (m *List) Use(s method.State, _ int, _ time.Time, _ method.Remember) (replay bool, err error) {
	line, _ := s.Own().(onetime.Line)
	err = m.File.Use(line)
	if errors.Is(err, onetime.ErrUsed) {
		return true, nil
	}
	return false, err
}

// Advise gives no warnings, as the owner of the list chooses its sequences.
func (*List) Advise(method.Reader, []method.Door, int) {}
