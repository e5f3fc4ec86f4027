package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/knockwall/knockwall/internal/forge"
)

// knockwall is this project's daemon with the first rules of the README. The only
// difference: all knocks are SYNs, as for the other systems.
type knockwall struct {
	binary string
	*daemon
}

func (k *knockwall) name() string { return "knockwall" }

func (k *knockwall) start(l *lab) (err error) {
	rules := filepath.Join(l.folder, "ssh.hcl")
	text := fmt.Sprintf("door \"ssh\" {\n  ports    = [%d]\n  sequence = [%d, %d, %d]\n  window   = %q\n}\n",
		door.Number, sequence[0].Number, sequence[1].Number, sequence[2].Number, l.window)
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		return err
	}
	k.daemon, err = launch(l, exec.Command(k.binary, "run", "--config", rules, "--control", filepath.Join(l.folder, "control")))
	return err
}

func (k *knockwall) stop() { k.kill() }

func (k *knockwall) knocks(from netip.Addr) ([]forge.Segment, error) { return portKnocks(from), nil }

func (k *knockwall) noise() noise { return noise{port: sequence[0]} }
