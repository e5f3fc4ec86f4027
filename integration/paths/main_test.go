// Package paths tests the ways by which packets come: addresses, interfaces, NAT, gateways,
// VRFs, groups and forged sources. None leads around a door.
package paths

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
