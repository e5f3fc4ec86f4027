package wall_test

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/knockwall/knockwall/internal/audit"
)

// coded is the kind and the code of an event.
type coded struct {
	kind   audit.Kind
	code   audit.Code
	failed bool
}

func (c coded) String() string {
	return fmt.Sprintf("%s code=%s failed=%t", c.kind, c.code, c.failed)
}

// recorded are the codes of all events in these tests.
var recorded = struct {
	sync.Mutex
	codes map[coded]bool
}{codes: map[coded]bool{}}

// noteCode records the code of an event.
func noteCode(e audit.Event) {
	recorded.Lock()
	defer recorded.Unlock()
	recorded.codes[coded{e.Kind, e.Code, e.Failed}] = true
}

// unreached are codes that no test of this package records.
var unreached = map[coded]bool{
	{audit.Overloaded, audit.CodeEventsLost, false}: true, // recorded by buffers and followers
	{audit.Stopped, audit.CodeWallRemoved, true}:    true, // if reading fails while the wall is removed
}

// TestMain checks after all tests that the table of events has the code of every event,
// and, if all tests have run, that the wall can record every code of the table.
func TestMain(m *testing.M) {
	status := m.Run()
	if status == 0 && !codesAreThoseOfTheTable(allRan()) {
		status = 1
	}
	os.Exit(status)
}

// allRan reports whether all tests have run.
func allRan() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if flag.Lookup(name).Value.String() != "" {
			return false
		}
	}
	return !testing.Short()
}

// codesAreThoseOfTheTable returns what is wrong with the recorded codes. If complete is
// set, they must be all codes of the table.
func codesAreThoseOfTheTable(complete bool) bool {
	good := true
	known := map[coded]bool{}
	for _, row := range audit.Table() {
		for _, code := range row.Codes {
			known[coded{row.Kind, code, false}] = true
		}
		for _, code := range row.Failures {
			known[coded{row.Kind, code, true}] = true
		}
	}
	for c := range recorded.codes {
		if !known[c] {
			fmt.Printf("an event was recorded that the table of events does not know: %s\n", c)
			good = false
		}
	}
	for c := range known {
		if complete && c.code != audit.CodeManySources && !recorded.codes[c] && !unreached[c] {
			fmt.Printf("no test has a wall record the event %s\n", c)
			good = false
		}
	}
	return good
}
