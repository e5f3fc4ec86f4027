// Package daemon tests the daemon as a program: its control socket, commands, files,
// privileges, and errors.
package daemon

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
