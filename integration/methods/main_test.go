// Package methods tests the other ways to knock: one-time passwords, lists of one-time
// sequences, rolling sequences, and a method that only the tests have.
package methods

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
