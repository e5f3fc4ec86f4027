package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/knockwall/knockwall/internal/nft"
)

// flushers are units that may delete tables which are not theirs.
var flushers = []string{"nftables.service", "ufw.service", "firewalld.service"}

// systemdFolder is where enabled units are linked to.
var systemdFolder = "/etc/systemd/system"

// findFlushers finds what the kernel lacks, and where it cannot keep others from deleting
// the wall, who may do that.
func findFlushers(*Host) (findings []Finding, err error) {
	kernel, err := nft.OpenKernel()
	if errors.Is(err, nft.ErrPrivilege) {
		return nil, errRoot
	}
	if missing := (*nft.MissingFeatureError)(nil); errors.As(err, &missing) {
		return []Finding{{Severity: Error, Problem: "No wall can stand: " + missing.Error() + ".", Cure: "Install a kernel, or its modules, that can."}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	if kernel.Features().Ownership {
		return nil, nil
	}
	return enabledFlushers(), nil
}

func enabledFlushers() (findings []Finding) {
	for _, unit := range flushers {
		links, _ := filepath.Glob(filepath.Join(systemdFolder, "*.wants", unit))
		if len(links) == 0 {
			continue
		}
		if _, err := os.Stat(links[0]); err != nil {
			continue // what was removed is enabled still
		}
		findings = append(findings, Finding{Severity: Warning,
			Problem: fmt.Sprintf("%s is enabled, and may delete the wall's table when it is reloaded, which kernels from Linux 6.9 on refuse. The daemon puts the wall back; until then its doors are bare.", unit),
			Cure:    "Take `flush ruleset` out of what it loads, or run a newer kernel."})
	}
	return findings
}
