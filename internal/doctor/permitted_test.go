package doctor

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Root is not told to become root.
func TestWhatIsNotPermittedIsSaidByWhoAsks(t *testing.T) {
	want := "reading conntrack takes root"
	if os.Geteuid() == 0 {
		want = "reading conntrack is not permitted here: operation not permitted"
	}
	if got := notPermitted("reading conntrack", unix.EPERM).Error(); got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}
