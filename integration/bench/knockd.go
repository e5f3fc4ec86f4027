package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/knockwall/knockwall/internal/forge"
)

// knockd is Debian's knockd. It runs a command for each source to open the door, here nft,
// which is faster than iptables. It writes no log, so it has less work than in most
// installations.
type knockd struct {
	binary, nft string
	*daemon
}

func (k *knockd) name() string { return "knockd" }

func (k *knockd) start(l *lab) (err error) {
	table := fmt.Sprintf(`table inet filter {
	set guests { type ipv4_addr; timeout %ds; }
	chain input {
		type filter hook input priority filter; policy accept;
		ct state established accept
		tcp dport %d ip saddr @guests accept
		tcp dport %d drop
	}
}
`, int(l.window.Seconds()), door.Number, door.Number)
	if err := run(l, table, k.nft, "-f", "-"); err != nil {
		return err
	}
	path := filepath.Join(l.folder, "knockd.conf")
	text := fmt.Sprintf(`[options]
	PidFile = %s
[ssh]
	sequence = %d,%d,%d
	tcpflags = syn
	start_command = %s add element inet filter guests { %%IP%% }
`, filepath.Join(l.folder, "knockd.pid"), sequence[0].Number, sequence[1].Number, sequence[2].Number, k.nft)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	k.daemon, err = launch(l, exec.Command(k.binary, "-i", l.serverLink, "-c", path))
	return err
}

func (k *knockd) stop() { k.kill() }

func (k *knockd) knocks(from netip.Addr) ([]forge.Segment, error) { return portKnocks(from), nil }

func (k *knockd) noise() (noise, error) { return noise{port: sequence[0]}, nil }
