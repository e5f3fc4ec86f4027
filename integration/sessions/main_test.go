// Package sessions tests established connections: they go on, and end if they should.
package sessions

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
