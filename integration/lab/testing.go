package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Must fails the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// NeedsProgram returns the path of a program. If it is not installed, the test is skipped;
// where CI is set, the test fails.
func NeedsProgram(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		// On Debian, a user's PATH has no sbin folders.
		if path, err = exec.LookPath(filepath.Join("/usr/sbin", program)); err == nil {
			return path
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("CI has to install %s", program)
		}
		t.Skipf("%s is not installed", program)
	}
	return path
}

// NeedsRoot skips the test unless root of the initial user namespace runs it. Where CI is
// set, the test fails instead.
func NeedsRoot(t testing.TB, why string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	Must(t, err)
	// The initial user namespace maps all ids.
	if fields := strings.Fields(string(b)); len(fields) == 3 && fields[2] == "4294967295" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("CI has to run this as root: %s", why)
	}
	t.Skipf("run as root to test this: %s", why)
}

// WriteFile writes a file with this mode, whatever the umask is. It makes missing folders.
func WriteFile(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	Must(t, os.WriteFile(path, []byte(text), mode))
	Must(t, os.Chmod(path, mode))
}

// Output is what a program has written so far. It is safe for concurrent use.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends to the output.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns the output.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Tail returns the last n bytes of a text that is longer.
func Tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

// EndAtOnce is for the environment of short programs: without it the race detector delays
// the end of each by a second.
const EndAtOnce = "GORACE=atexit_sleep_ms=0"
