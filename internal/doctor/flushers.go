package doctor

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nft"
)

// flusher is the unit whose rules, as most systems have them, begin by deleting the tables of
// others. ufw and firewalld change only their own.
const flusher = "nftables.service"

// systemdFolder contains the links of enabled units.
var systemdFolder = "/etc/systemd/system"

// findFlushers finds kernel features that the wall needs and the kernel lacks. If the
// kernel has no table ownership, it finds a unit that may delete the table.
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
	return enabledFlusher(), nil
}

func enabledFlusher() []Finding {
	links, _ := filepath.Glob(filepath.Join(systemdFolder, "*.wants", flusher))
	if len(links) == 0 {
		return nil
	}
	if _, err := os.Stat(links[0]); err != nil {
		return nil // the link of a removed unit remains
	}
	return []Finding{{Severity: Warning,
		Problem: flusher + " is enabled. When it reloads, it may delete the wall's table; Linux 6.9 and later refuse that. The daemon restores the table, but until then the doors guard nothing.",
		Cure:    "Remove `flush ruleset` from the rules that it loads, or run Linux 6.9 or later."}}
}
