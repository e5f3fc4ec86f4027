// Package knocks tests what knocks mean: which packets are knocks, what they open
// and close, and that the first packet after them is let in.
package knocks

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
