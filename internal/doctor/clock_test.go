package doctor

import (
	"errors"
	"testing"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/ruleset"
)

func TestThatTheClockIsNotSynchronisedIsFoundWhereItMatters(t *testing.T) {
	before := readClock
	t.Cleanup(func() { readClock = before })
	timed := &Host{Config: &ruleset.Config{Doors: []ruleset.Door{{Name: "vpn", Methods: []method.Method{&passwords.OTP{}}}}}}
	plain := &Host{Config: &ruleset.Config{Doors: []ruleset.Door{{Name: "ssh"}}}}
	for _, test := range []struct {
		host *Host
		off  bool
		want int
	}{{timed, true, 1}, {timed, false, 0}, {plain, true, 0}} {
		readClock = func() (bool, error) { return test.off, nil }
		if found, err := findClock(test.host); len(found) != test.want || err != nil {
			t.Errorf("found %+v, %v", found, err)
		}
	}
	readClock = func() (bool, error) { return false, errors.New("forbidden") }
	if found, err := findClock(timed); len(found) > 0 || err == nil {
		t.Errorf("when it cannot be asked: found %+v, %v", found, err)
	}
	if _, err := before(); err != nil {
		t.Skipf("needs to be allowed to ask for the clock: %v", err)
	}
}
