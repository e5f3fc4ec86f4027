// Package monitoring tests what the package brings for Prometheus: the alert rules, the
// dashboard, and the script that hands the metrics to the node exporter.
package monitoring

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
