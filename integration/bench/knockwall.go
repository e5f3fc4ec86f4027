package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/knockwall/knockwall/internal/forge"
)

// knockwall is this project's daemon with one door.
type knockwall struct {
	title  string
	binary string
	more   string // blocks in the rule file before that of the door
	way
	*daemon
}

// way is how the door of knockwall opens.
type way interface {
	// rules returns the attributes of the wall and of the door. Files that they name are in
	// the folder.
	rules(folder string) (wall, door string, err error)
	knocks(from netip.Addr) ([]forge.Segment, error)
	noise() (noise, error)
}

func (k *knockwall) name() string { return k.title }

func (k *knockwall) start(l *lab) error {
	wall, attributes, err := k.rules(l.folder)
	if err != nil {
		return err
	}
	rules := k.file(l)
	text := fmt.Sprintf("wall {\n%s}\n%sdoor \"ssh\" {\n  ports  = [%d]\n  window = %q\n%s}\n", wall, k.more, door.Number, l.window, attributes)
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		return err
	}
	k.daemon, err = launch(l, exec.Command(k.binary, "run", "--config", rules, "--control", k.control(l)))
	return err
}

func (*knockwall) file(l *lab) string { return filepath.Join(l.folder, "ssh.hcl") }

func (*knockwall) control(l *lab) string { return filepath.Join(l.folder, "control") }

func (k *knockwall) stop() { k.kill() }

// plain is the sequence of the README's first rules. The only difference: all knocks are
// SYNs, as for the other systems.
type plain struct{}

func (plain) rules(string) (wall, door string, err error) {
	return "", fmt.Sprintf("  sequence = [%d, %d, %d]\n", sequence[0].Number, sequence[1].Number, sequence[2].Number), nil
}

func (plain) knocks(from netip.Addr) ([]forge.Segment, error) { return portKnocks(from), nil }

func (plain) noise() (noise, error) { return noise{port: sequence[0]}, nil }
