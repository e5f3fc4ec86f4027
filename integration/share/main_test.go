// Package share tests that hosts share their windows: three hosts, each with a daemon and its
// companion, around one client, and real NATS servers.
package share

import (
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) {
	lab.Main(m,
		lab.Program{Name: "knockwall-share", Build: []string{"../../cmd/knockwall-share"}},
		lab.Program{Name: "nats-server", Build: []string{"-modfile=../../internal/tools/go.mod", "github.com/nats-io/nats-server/v2"}},
		lab.Program{Name: "nk", Build: []string{"-modfile=../../internal/tools/go.mod", "github.com/nats-io/nkeys/nk"}},
	)
}
