package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nft"
)

// flushers are units that may delete tables of others.
var flushers = []string{"nftables.service", "ufw.service", "firewalld.service"}

// systemdFolder contains the links of enabled units.
var systemdFolder = "/etc/systemd/system"

// findFlushers finds kernel features that the wall needs and the kernel lacks. If the
// kernel has no table ownership, it finds the units that may delete the table.
func findFlushers(*Host) (findings []Finding, err error) {
	kernel, err := nft.OpenKernel()
	if errors.Is(err, nft.ErrPrivilege) {
		return nil, notPermitted("reading the firewall", unix.EPERM)
	}
	if missing := (*nft.MissingFeatureError)(nil); errors.As(err, &missing) {
		return []Finding{{Severity: Error, Problem: "This kernel cannot run the wall: " + missing.Error() + ".", Cure: "Install a kernel, or kernel modules, with this feature."}}, nil
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
			continue // the link of a removed unit remains
		}
		findings = append(findings, Finding{Severity: Warning,
			Problem: fmt.Sprintf("%s is enabled. When it reloads, it may delete the wall's table; Linux 6.9 and later refuse that. The daemon restores the table, but until then the doors guard nothing.", unit),
			Cure:    "Remove `flush ruleset` from the rules that it loads, or run Linux 6.9 or later."})
	}
	return findings
}
