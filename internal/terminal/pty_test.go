//go:build linux

package terminal_test

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/terminal"
)

// A terminal's width is used, but not one of a few columns.
func TestWidthOfATerminal(t *testing.T) {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs a terminal: ", err)
	}
	defer ptmx.Close()
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs a terminal: ", err)
	}
	defer pts.Close()
	t.Setenv("COLUMNS", "")
	for set, want := range map[uint16]uint{132: 132, 40: 40, 7: 40, 0: terminal.DefaultWidth} {
		if err := unix.IoctlSetWinsize(int(ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: set}); err != nil {
			t.Fatal(err)
		}
		if columns, is := terminal.Width(wrapped{pts}); columns != want || !is {
			t.Errorf("of %d columns: %d, a terminal: %t", set, columns, is)
		}
		if columns, rows := terminal.Screen(wrapped{pts}); columns != uint(set) || rows != 24 {
			t.Errorf("the screen has %d columns and %d rows", columns, rows)
		}
	}
}
