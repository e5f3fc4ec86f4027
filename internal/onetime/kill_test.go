//go:build linux

package onetime_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/onetime"
)

// userVariable makes this test binary use up the list that it names. The process prints the
// number of each used line.
const userVariable = "KNOCKWALL_ONETIME_LIST"

func TestMain(m *testing.M) {
	path := os.Getenv(userVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	l := onetime.List{Path: path}
	for {
		line, left, err := l.Next()
		if err == nil && left > 0 {
			err = l.Use(line)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if left == 0 {
			os.Exit(0)
		}
		fmt.Println(line.Steps[0].Number)
	}
}

// A daemon that is killed at any time leaves a list in which all used lines are marked,
// and at most one line that it was about to use. Nothing else is changed.
func TestAListIsWholeWhenItsUserIsKilled(t *testing.T) {
	const lines = 2000
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "%d,2,3\n", 10000+i)
	}
	l := write(t, text.String())
	used := 0
	for round := range 20 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), userVariable+"="+l.Path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		// Each round kills after another number, so at another place.
		for said.Scan() {
			var n int
			if _, err := fmt.Sscan(said.Text(), &n); err != nil {
				t.Fatal(err)
			}
			if n < 10000+used {
				t.Fatalf("round %d: %d was used twice", round, n)
			}
			used = n - 10000 + 1
			if used%(17+round) == 0 {
				_ = child.Process.Kill() // it may have printed more by then
			}
		}
		_ = child.Wait()

		_, left, err := l.Next()
		if err != nil {
			t.Fatal(err)
		}
		if gone := lines - left; gone != used && gone != used+1 {
			t.Errorf("round %d: %d lines are marked, %d were used", round, gone, used)
		}
		after, err := os.ReadFile(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(strings.TrimSuffix(string(after), "\n"), "\n") {
			want := fmt.Sprintf("%d,2,3", 10000+i)
			if i < lines-left {
				want = "#" + want[1:]
			}
			if line != want {
				t.Fatalf("round %d: line %d is %q, want %q", round, i+1, line, want)
			}
		}
		if left == 0 {
			if round == 0 {
				t.Error("it was never killed")
			}
			return // as this machine is slow to kill
		}
		used = lines - left
	}
}
