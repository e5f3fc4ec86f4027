package doctor

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// readClock asks the kernel about its clock, and changes nothing.
var readClock = func() (unsynchronised bool, err error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Status&unix.STA_UNSYNC != 0, nil
}

// findClock finds that nobody keeps the clock right where what opens a door depends on it.
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
		return nil, fmt.Errorf("whether the clock is synchronised is unknown: %w", err)
	}
	if !unsynchronised {
		return nil, nil
	}
	return []Finding{{Severity: Warning,
		Problem: fmt.Sprintf("The clock is not synchronised, and what opens %s changes with the time: when it is wrong, who knocks right stays out.", strings.Join(doors, ", ")),
		Cure:    "Run an NTP client: `timedatectl set-ntp true`, chrony or ntpd."}}, nil
}
