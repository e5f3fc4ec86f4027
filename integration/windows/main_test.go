// Package windows tests a door with very many open windows: what the daemon takes to start,
// to reload, to answer and to open one more, and who still gets in.
package windows

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
