// Package clients tests the programs and files that users begin with: other clients, the
// examples, and rule files that import makes.
package clients

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
