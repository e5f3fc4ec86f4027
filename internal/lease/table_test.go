package lease

import (
	"testing"
	"time"
)

// A lease that is passed on, however often and slowly, does not become longer by that.
func TestALeaseThatIsPassedOnDoesNotGetLonger(t *testing.T) {
	now := epoch
	m := NewMember("a", func() time.Time { return now })
	m.StateBegins()
	m.SetDoors(map[string]time.Duration{"ssh": 30 * time.Second})
	m.StateIsKnown()
	s := Statement{Door: "ssh", Source: "192.0.2.1", Host: "b", Stamp: epoch.UnixMilli(), Left: 10_000}
	for _, from := range []string{"b", "c", "d"} {
		m.Told(from, &News{Statements: []Statement{s}})
		now = now.Add(3 * time.Second) // what others tell then was true three seconds ago
	}
	if w, ok := m.table.entries[s.key()].window(now); !ok || w.end.Sub(now) != time.Second {
		t.Errorf("nine seconds later it has %s left, %t", w.end.Sub(now), ok)
	}
	now = now.Add(-9 * time.Second)
	s.Left = 4_000 // it was passed on by a faster way
	m.Told("c", &News{Statements: []Statement{s}})
	if w, _ := m.table.entries[s.key()].window(now); w.end.Sub(now) != 4*time.Second {
		t.Errorf("it has %s left", w.end.Sub(now))
	}
}
