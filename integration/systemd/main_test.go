// Package systemd tests the units and the package under a real systemd, which is the first
// process of a machine in namespaces of its own.
package systemd

import (
	"fmt"
	"os"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

func TestMain(m *testing.M) {
	if os.Getenv(machineVariable) != "" {
		// It returns only if it fails.
		fmt.Fprintf(os.Stderr, "machine: %v\n", becomeMachine(os.Args[1], os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(1)
	}
	lab.Main(m,
		lab.Program{Name: "knockwall-share", Build: []string{"../../cmd/knockwall-share"}},
		lab.Program{Name: "nats-server", Build: []string{"-modfile=../../internal/tools/go.mod", "github.com/nats-io/nats-server/v2"}},
	)
}
