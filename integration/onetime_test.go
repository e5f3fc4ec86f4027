package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/knockwall/knockwall/internal/packet"
)

// Each line of a list opens the door once, in order, whatever becomes of the daemon;
// and somebody is told before none is left.
func TestOneTimeSequences(t *testing.T) {
	t.Parallel()
	knock := needs(t, "knock")
	l := newLab(t)
	l.serve(22)
	list := filepath.Join(l.folder, "sequences")
	const before = "# one a line\n4113,27911:udp,1840\n\n5227,911,30411\n1901:udp,4113,12007\n"
	must(t, os.WriteFile(list, []byte(before), 0o600))
	rules := `door "ssh" {
  ports              = [22]
  one_time_sequences = "` + list + `"
  window             = "10m"
}`
	lines := [][]string{{"4113", "27911:udp", "1840"}, {"5227", "911", "30411"}, {"1901:udp", "4113", "12007"}}
	var knocks [][]packet.Port
	for _, words := range lines {
		knocks = append(knocks, toKnocks(t, words))
	}
	d := l.run(rules)
	d.waitFor("low ", "door=ssh", "sequences left in "+list+": 3")

	// The later ones are not good yet.
	early := nth(1, server4)
	for _, later := range knocks[1:] {
		l.knock(early, server4, later...)
	}
	if l.admits(early, server4, 22) {
		t.Error("admitted out of turn")
	}
	for n, words := range lines {
		to, version := server4, "-4"
		if n%2 == 1 {
			to, version = server6, "-6"
		}
		source := client4
		if to.Is6() {
			source = client6
		}
		was := d.status().Doors[0].Counters
		if out, err := l.runOnClient(knock, append([]string{version, to.String()}, words...)...); err != nil {
			t.Fatalf("knock: %v\n%s", err, out)
		}
		if !l.letsIn(source, to, 22) {
			t.Fatalf("refused after the line %d", n+1)
		}
		// The source of the last line has a window still.
		eventually(t, "the door has opened", func() bool {
			now := d.status().Doors[0].Counters
			return now.Opened+now.Refreshed == was.Opened+was.Refreshed+1
		})
		d.waitFor("low ", "door=ssh", "sequences left in", ": "+string('0'+byte(len(lines)-n-1)))
		b, err := os.ReadFile(list)
		must(t, err)
		if got := usedLines(string(b)); got != n+1 {
			t.Errorf("after the line %d these are crossed out: %d\n%s", n+1, got, b)
		}
		if n == 0 {
			d.end(syscall.SIGKILL)
			d = l.run(rules)
		}
		// What was used opens to nobody, whoever overheard it.
		for i, used := range knocks[:n+1] {
			thief := nth(10*n+i+2, to)
			l.knock(thief, to, used...)
			if l.admits(thief, to, 22) {
				t.Errorf("after the line %d: admitted with the line %d", n+1, i+1)
			}
		}
	}
	// Nobody gets in any more, after a restart neither; who has a window does.
	d.end(syscall.SIGTERM)
	d = l.run(rules)
	for n, used := range knocks {
		thief := nth(100+n, server4)
		l.knock(thief, server4, used...)
		if l.admits(thief, server4, 22) {
			t.Errorf("after all were used: admitted with the line %d", n+1)
		}
	}
	if left := d.status().Doors[0].SequencesLeft; left == nil || *left != 0 {
		t.Errorf("the sequences left are %v, want 0", left)
	}
	if !l.letsIn(client4, server4, 22) {
		t.Error("who has a window is refused")
	}
}

// usedLines counts the lines that were crossed out: all but the comment that was one
// from the start.
func usedLines(list string) int { return strings.Count("\n"+list, "\n#") - 1 }
