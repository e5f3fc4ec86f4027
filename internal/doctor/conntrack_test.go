package doctor

import (
	"strings"
	"testing"
)

func TestThatConntrackIsNearlyFullIsFound(t *testing.T) {
	for _, test := range []struct {
		known, room int
		want        bool
	}{{899, 1000, false}, {900, 1000, true}, {1000, 1000, true}, {0, 0, false}, {5, 0, false}} {
		found := crowded(test.known, test.room)
		if (len(found) == 1) != test.want {
			t.Errorf("of %d of %d is found %+v", test.known, test.room, found)
		}
		if test.want && !strings.Contains(found[0].Cure, "nf_conntrack_max=4000") {
			t.Errorf("the cure is %s", found[0].Cure)
		}
	}
}
