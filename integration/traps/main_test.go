// Package traps tests scans and guesses: they learn nothing, open nothing, and traps stop
// them.
package traps

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
