package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/sessions"
	"github.com/knockwall/knockwall/ruleset"
)

// shortestIdle is how long conntrack should remember an idle TCP connection, in seconds:
// a little longer than the interval after which hosts send keep-alives (RFC 5382, REQ-5).
const shortestIdle = 7440

// findConntrack finds a nearly full connection table, and a time-out that ends idle TCP
// connections too early.
func findConntrack(h *Host) (findings []Finding, err error) {
	known, room, err := sessions.Usage()
	if errors.Is(err, unix.EPERM) {
		err = notPermitted("reading conntrack", err)
	}
	findings = crowded(known, room)
	tcp := slices.ContainsFunc(h.Config.Doors, func(d ruleset.Door) bool {
		return slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return r.Protocol == packet.TCP })
	})
	const name = "nf_conntrack_tcp_timeout_established"
	b, readErr := os.ReadFile("/proc/sys/net/netfilter/" + name) // the file does not exist before the kernel tracks connections
	if seconds, numberErr := strconv.Atoi(strings.TrimSpace(string(b))); tcp && readErr == nil && numberErr == nil && seconds < shortestIdle {
		findings = append(findings, Finding{Severity: Warning,
			Problem: fmt.Sprintf("conntrack forgets TCP connections that are idle for %d seconds. After that, the wall drops the packets of such connections to a door.", seconds),
			Cure:    fmt.Sprintf("Run `sysctl -w net.netfilter.%s=432000`, the kernel's default. Set it in /etc/sysctl.d to keep it.", name)})
	}
	return findings, err
}

// crowded finds a connection table that is nearly full.
func crowded(known, room int) []Finding {
	if !sessions.NearlyFull(known, room) {
		return nil
	}
	return []Finding{{Severity: Warning,
		Problem: fmt.Sprintf("conntrack's table is nearly full, %d of %d connections. When it is full, the kernel drops this host's new connections, knocks included.", known, room),
		Cure:    fmt.Sprintf("Make room with `sysctl -w net.netfilter.nf_conntrack_max=%d`. Set it in /etc/sysctl.d to keep it.", 4*room)}}
}
