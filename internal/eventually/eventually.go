// Package eventually waits in tests for what another goroutine, a process or the kernel does:
// until it is done, and not for as long as it should take.
package eventually

import "time"

// Deadline is more than anything takes on a busy machine.
const Deadline = time.Minute

// TB is the part of testing.TB and of a testscript that this package needs.
type TB interface {
	Fatalf(format string, a ...any)
}

// True waits until a condition holds. If it does not within Deadline, the test fails and
// names the condition.
func True(t TB, what string, holds func() bool) {
	if t, ok := t.(interface{ Helper() }); ok {
		t.Helper()
	}
	Within(t, Deadline, what, holds)
}

// Within is True with another time limit.
func Within(t TB, limit time.Duration, what string, holds func() bool) {
	if t, ok := t.(interface{ Helper() }); ok {
		t.Helper()
	}
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("after %s it is still not so: %s", limit, what)
}
