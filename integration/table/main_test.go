// Package table tests the nftables table: the kernel takes it and lists it as written,
// windows in it are opened and refreshed, and it is put back if others change it.
package table

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
