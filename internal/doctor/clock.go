package doctor

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// readClock reports whether the kernel considers the clock unsynchronised. It changes
// nothing.
var readClock = func() (unsynchronised bool, err error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Status&unix.STA_UNSYNC != 0, nil
}

// findClock finds an unsynchronised clock, if a door's knocks or passwords depend on the
// time.
func findClock(h *Host) (findings []Finding, err error) {
	var doors []string
	for _, d := range h.Config.Doors {
		if d.NeedsClock() {
			doors = append(doors, d.Name)
		}
	}
	if len(doors) == 0 {
		return nil, nil
	}
	unsynchronised, err := readClock()
	if err != nil {
		return nil, fmt.Errorf("reading whether the clock is synchronised: %w", err)
	}
	if !unsynchronised {
		return nil, nil
	}
	return []Finding{{Severity: Warning,
		Problem: fmt.Sprintf("The clock is not synchronised. What opens %s changes with the time, so a wrong clock keeps out clients that knock correctly.", strings.Join(doors, ", ")),
		Cure:    "Run an NTP client: `timedatectl set-ntp true`, chrony or ntpd."}}, nil
}
