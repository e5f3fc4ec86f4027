// Package flood tests the daemon under floods: they keep nobody out, and the daemon stays
// small.
package flood

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
