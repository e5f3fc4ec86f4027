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

// shortestIdle is for how long an idle TCP connection is to be remembered, in seconds: a
// little longer than it takes until keep-alives are sent (RFC 5382, REQ-5).
const shortestIdle = 7440

// findConntrack finds that conntrack has no room for what is new, or forgets what lives.
func findConntrack(h *Host) (findings []Finding, err error) {
	known, room, err := sessions.Usage()
	if errors.Is(err, unix.EPERM) {
		err = errors.New("it takes root to ask conntrack")
	}
	findings = crowded(known, room)
	tcp := slices.ContainsFunc(h.Config.Doors, func(d ruleset.Door) bool {
		return slices.ContainsFunc(d.Ports, func(r packet.PortRange) bool { return r.Protocol == packet.TCP })
	})
	const name = "nf_conntrack_tcp_timeout_established"
	b, readErr := os.ReadFile("/proc/sys/net/netfilter/" + name) // that there is none is so where nothing was tracked yet
	if seconds, numberErr := strconv.Atoi(strings.TrimSpace(string(b))); tcp && readErr == nil && numberErr == nil && seconds < shortestIdle {
		findings = append(findings, Finding{Severity: Warning,
			Problem: fmt.Sprintf("conntrack forgets TCP connections that are idle for %d seconds: behind a door they are dead from then on.", seconds),
			Cure:    fmt.Sprintf("`sysctl -w net.netfilter.%s=432000`, which is the kernel's default, and in /etc/sysctl.d for good.", name)})
	}
	return findings, err
}

// crowded finds that of all connections that conntrack has room for many are known.
func crowded(known, room int) []Finding {
	if !sessions.NearlyFull(known, room) {
		return nil
	}
	return []Finding{{Severity: Warning,
		Problem: fmt.Sprintf("conntrack's table is nearly full, %d of %d connections: when it is full, the kernel drops new connections of this host, and knocks.", known, room),
		Cure:    fmt.Sprintf("Make room: `sysctl -w net.netfilter.nf_conntrack_max=%d`, and in /etc/sysctl.d for good.", 4*room)}}
}
