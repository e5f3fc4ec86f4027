package doctor

import (
	"fmt"
	"net"
)

// findInterfaces finds the interfaces of doors that this host does not have.
func findInterfaces(h *Host) (findings []Finding, err error) {
	for _, d := range h.Config.Doors {
		for _, name := range d.Interfaces {
			if _, err := net.InterfaceByName(name); err != nil {
				findings = append(findings, Finding{Severity: Error, Door: d.Name,
					Problem: fmt.Sprintf("There is no interface %q on this host.", name),
					Cure:    "Name one that `ip link` shows, or leave interfaces out to guard all of them."})
			}
		}
	}
	return findings, nil
}
