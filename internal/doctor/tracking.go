package doctor

import (
	"fmt"
	"strings"

	"github.com/google/nftables"

	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
)

// findUntracked finds rules that exempt connections to a door from conntrack, so that the
// wall treats all their packets as strangers'. It also finds flowtables, whose packets
// bypass the wall.
func findUntracked(h *Host) (findings []Finding, err error) {
	f, err := h.firewall()
	if err != nil {
		return nil, err
	}
	said := map[string]bool{}
	for _, c := range f.hooked(nftables.ChainHookPrerouting, nftables.ChainTypeFilter) {
		walkErr := f.walk(c, func(in *chain, r rule) {
			if !r.untrack {
				return
			}
			for _, d := range h.Config.Doors {
				ports := portsIn(d, r.match)
				if key := d.Name + in.where(); ports != "" && !said[key] {
					said[key] = true
					findings = append(findings, Finding{Severity: Warning, Door: d.Name,
						Problem: fmt.Sprintf("A rule (%s) may exempt connections to %s from conntrack. The wall drops such connections after their first packet.", in.where(), ports),
						Cure:    "Remove these ports from that rule (notrack, or CT --notrack)."})
				}
			}
		})
		if walkErr != nil {
			err = walkErr
		}
	}
	for _, t := range f.flowtables {
		var devices []string
		for _, d := range t.Devices {
			devices = append(devices, printable.Quote(d))
		}
		findings = append(findings, Finding{Severity: Warning,
			Problem: fmt.Sprintf("The flowtable %s (table %s, devices %s) forwards established connections past the wall. `close --sessions` does not end them.",
				printable.Quote(t.Name), printable.Quote(t.Table.Name), strings.Join(devices, " ")),
			Cure: "Exclude connections to guarded ports from `flow add` if you want `close --sessions` to end them."})
	}
	if err == nil {
		err = f.partly
	}
	return findings, err
}

// portsIn returns the door's ports that are in the traffic, or "".
func portsIn(d ruleset.Door, t traffic) string {
	var ports []string
	for _, r := range d.Ports {
		if both := t.and(of(r)); !both.none {
			ports = append(ports, both.String())
		}
	}
	return strings.Join(ports, ", ")
}
