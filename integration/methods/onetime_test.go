package methods

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
)

// Each line of a list opens the door once, in order, even if the daemon stops or is killed
// in between. The daemon warns before no line is left.
func TestOneTimeSequences(t *testing.T) {
	t.Parallel()
	knock := lab.NeedsProgram(t, "knock")
	l := lab.New(t)
	l.ServeTCP(22)
	list := filepath.Join(l.Folder, "sequences")
	const before = "# one a line\n4113,27911:udp,1840\n\n5227,911,30411\n1901:udp,4113,12007\n"
	lab.Must(t, os.WriteFile(list, []byte(before), 0o600))
	rules := `door "ssh" {
  ports              = [22]
  one_time_sequences = "` + list + `"
  window             = "10m"
}`
	lines := [][]string{{"4113", "27911:udp", "1840"}, {"5227", "911", "30411"}, {"1901:udp", "4113", "12007"}}
	var knocks [][]packet.Port
	for _, words := range lines {
		knocks = append(knocks, lab.ParseKnocks(t, words))
	}
	d := l.Run(rules)
	d.WaitFor("low ", "door=ssh", "sequences left in "+list+": 3")

	// Later lines do not open the door yet.
	early := lab.Source(1, lab.Server4)
	for _, later := range knocks[1:] {
		l.Knock(early, lab.Server4, later...)
	}
	if l.AdmitsAtOnce(early, lab.Server4, 22) {
		t.Error("admitted with a line that is not the next one")
	}
	for n, words := range lines {
		to, version := lab.Server4, "-4"
		if n%2 == 1 {
			to, version = lab.Server6, "-6"
		}
		source := lab.Client4
		if to.Is6() {
			source = lab.Client6
		}
		was := d.Status().Doors[0].Counters
		if out, err := l.RunOnClient(knock, append([]string{version, to.String()}, words...)...); err != nil {
			t.Fatalf("knock: %v\n%s", err, out)
		}
		if !l.Admits(source, to, 22) {
			t.Fatalf("refused after the line %d", n+1)
		}
		// The source that used the last line still has a window.
		eventually.True(t, "the door has opened", func() bool {
			now := d.Status().Doors[0].Counters
			return now.Opened+now.Refreshed == was.Opened+was.Refreshed+1
		})
		d.WaitFor("low ", "door=ssh", "sequences left in", ": "+string('0'+byte(len(lines)-n-1)))
		b, err := os.ReadFile(list)
		lab.Must(t, err)
		if got := usedLines(string(b)); got != n+1 {
			t.Errorf("after the line %d, %d lines are commented out:\n%s", n+1, got, b)
		}
		if n == 0 {
			d.Stop(syscall.SIGKILL)
			d = l.Run(rules)
		}
		// Used lines open to nobody, also not to a source that has overheard them.
		for i, used := range knocks[:n+1] {
			thief := lab.Source(10*n+i+2, to)
			l.Knock(thief, to, used...)
			if l.AdmitsAtOnce(thief, to, 22) {
				t.Errorf("after the line %d, admitted with the line %d", n+1, i+1)
			}
		}
	}
	// Nobody gets in any more, also not after a restart, except clients with a window.
	d.Stop(syscall.SIGTERM)
	d = l.Run(rules)
	for n, used := range knocks {
		thief := lab.Source(100+n, lab.Server4)
		l.Knock(thief, lab.Server4, used...)
		if l.AdmitsAtOnce(thief, lab.Server4, 22) {
			t.Errorf("after all lines were used, admitted with the line %d", n+1)
		}
	}
	if left := d.Status().Doors[0].SequencesLeft; left == nil || *left != 0 {
		t.Errorf("%v sequences are left, want 0", left)
	}
	if !l.Admits(lab.Client4, lab.Server4, 22) {
		t.Error("a client with a window is refused")
	}
}

// usedLines counts the lines that were commented out. The list has one other comment.
func usedLines(list string) int { return strings.Count("\n"+list, "\n#") - 1 }
