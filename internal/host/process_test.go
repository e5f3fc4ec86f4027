package host_test

import (
	"os"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/host"
)

func TestParentsAreFoundWhateverProcessesAreCalled(t *testing.T) {
	was, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	rename := func(name string) {
		if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
			t.Fatal(err)
		}
	}
	defer rename(strings.TrimSpace(string(was)))
	for _, name := range []string{"knockwall", "a b", "a) R 1 (b", ")", "((", "1 2 3 4"} {
		rename(name)
		if got := host.ParentOf(os.Getpid()); got != os.Getppid() {
			t.Errorf("the parent of %q is %d, want %d", name, got, os.Getppid())
		}
	}
	for _, nobody := range []int{-1, 0, 1 << 30} {
		if got := host.ParentOf(nobody); got != 0 {
			t.Errorf("the parent of process %d is %d", nobody, got)
		}
	}
}
