package lab

import (
	"fmt"
	"time"

	"github.com/knockwall/knockwall/internal/nft"
)

// KernelWindows returns the open windows in the server's kernel.
func (l *Lab) KernelWindows() []nft.Window {
	l.T.Helper()
	var windows []nft.Window
	Must(l.T, l.Server.Do(func() error {
		k, err := nft.OpenKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		windows, err = WindowsIn(k, "knockwall")
		return err
	}))
	return windows
}

// WindowsIn returns the open windows in a table.
func WindowsIn(k *nft.Kernel, table string) (windows []nft.Window, err error) {
	s, err := k.Standing(table)
	if err != nil || s == nil {
		return nil, err
	}
	all, err := k.Windows(s, func() { windows = nil }, func(w nft.Window) { windows = append(windows, w) })
	if err == nil && !all {
		err = fmt.Errorf("there are more windows than the %d that were read", len(windows))
	}
	return windows, err
}

// Span is a period. An event happened at some moment in it.
type Span struct{ from, to time.Time }

// ends returns when windows expire, by door and source. The windows were read at some
// moment between before and after, so each result is a span.
func ends(windows []nft.Window, before, after time.Time) map[string]Span {
	m := map[string]Span{}
	for _, w := range windows {
		m[w.Door+" "+w.Source.String()] = Span{before.Add(w.Left), after.Add(w.Left)}
	}
	return m
}

// WindowEnds returns when the kernel's windows expire, by door and source.
func (l *Lab) WindowEnds() map[string]Span {
	l.T.Helper()
	before := time.Now()
	windows := l.KernelWindows()
	return ends(windows, before, time.Now())
}

// SameWindows returns an error if windows are missing, are too many, or expire at another
// time than they should.
func SameWindows(want, got map[string]Span, tolerance time.Duration) error {
	for w := range got {
		if _, ok := want[w]; !ok {
			return fmt.Errorf("a window is open that should not be: %s", w)
		}
	}
	for w, x := range want {
		y, ok := got[w]
		switch {
		case !ok:
			return fmt.Errorf("a window is missing: %s", w)
		case y.from.Sub(x.to) > tolerance:
			return fmt.Errorf("the window %s ends %s too late", w, y.from.Sub(x.to))
		case x.from.Sub(y.to) > tolerance:
			return fmt.Errorf("the window %s ends %s too early", w, x.from.Sub(y.to))
		}
	}
	return nil
}

// Tick is the tolerance for the end of an unchanged window: the kernel counts in ticks.
const Tick = 50 * time.Millisecond
