// Package doctor tests the command doctor on hosts that defeat, weaken or break the wall.
package doctor

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
