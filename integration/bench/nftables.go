package main

import (
	"fmt"
	"net/netip"

	"github.com/knockwall/knockwall/internal/forge"
)

// recipe is port knocking without a daemon, as in the wiki of nftables: a set of sources
// and their next knocks, with a timeout of a second. It drops where the wiki's recipe
// rejects, as the other systems drop too.
type recipe struct{ nft string }

func (r *recipe) name() string { return "nftables" }

func (r *recipe) start(l *lab) error {
	return run(l, fmt.Sprintf(`table inet portknock {
	set clients { type ipv4_addr; flags timeout; }
	set candidates { type ipv4_addr . inet_service; flags timeout; }
	chain input {
		type filter hook input priority -10; policy accept;
		iifname "lo" return
		tcp dport %[1]d add @candidates { ip saddr . %[2]d timeout 1s }
		tcp dport %[2]d ip saddr . tcp dport @candidates add @candidates { ip saddr . %[3]d timeout 1s }
		tcp dport %[3]d ip saddr . tcp dport @candidates add @clients { ip saddr timeout %[4]ds }
		tcp dport %[5]d ip saddr @clients accept
		tcp dport %[5]d ct state established,related accept
		tcp dport %[5]d drop
	}
}
`, sequence[0].Number, sequence[1].Number, sequence[2].Number, int(l.window.Seconds()), door.Number), r.nft, "-f", "-")
}

func (r *recipe) stop() {}

func (r *recipe) knocks(from netip.Addr) ([]forge.Segment, error) { return portKnocks(from), nil }

func (r *recipe) noise() (noise, error) { return noise{port: sequence[0]}, nil }

func (r *recipe) pid() int { return 0 }

func (r *recipe) output() string { return "" }
