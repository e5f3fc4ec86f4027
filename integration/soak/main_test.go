// Package soak tests random actions against a model.
package soak

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
