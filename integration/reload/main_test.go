// Package reload tests reloads, restarts, kills and trials: they let no stranger in and
// cost no guest a packet.
package reload

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
