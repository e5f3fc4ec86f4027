package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// programs maps the names of the programs that are measured and used to their paths.
// Missing programs have no entry.
type programs map[string]string

// peers lists the programs that a machine may lack, with their Debian packages.
var peers = []struct{ program, pack, without string }{
	{"knockd", "knockd", "knockd is left out"},
	{"fwknopd", "fwknop-server", "fwknopd is left out"},
	{"fwknop", "fwknop-client", "fwknopd is left out"},
	{"iptables", "iptables", "fwknopd is left out"},
	{"nft", "nftables", "nftables alone and knockd are left out"},
	{"gcc", "gcc", "the queue loop in C is left out"},
}

// gather finds the installed programs, reports missing ones, and builds the others.
func gather(knockwall, folder string, missing io.Writer) (programs, error) {
	found := programs{"knockwall": knockwall}
	for _, p := range peers {
		path, err := exec.LookPath(p.program)
		if err != nil {
			// On Debian users do not have sbin in their PATH.
			path, err = exec.LookPath(filepath.Join("/usr/sbin", p.program))
		}
		if err != nil {
			fmt.Fprintf(missing, "bench: %s: %s is not installed. It is in Debian's package %s; integration/bench/install.sh installs it.\n", p.without, p.program, p.pack)
			continue
		}
		found[p.program] = path
	}
	if knockwall == "" {
		found["knockwall"] = filepath.Join(folder, "knockwall")
		build := exec.Command("go", "build", "-o", found["knockwall"], "github.com/knockwall/knockwall/cmd/knockwall")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building knockwall; run this in its source folder: %w\n%s", err, out)
		}
	}
	if gcc := found["gcc"]; gcc != "" {
		loop, err := compileQueue(gcc, folder)
		if err != nil {
			return nil, err
		}
		found["queue C"] = loop
	}
	return found, nil
}

// has reports whether none of the programs is missing.
func (p programs) has(names ...string) bool {
	for _, name := range names {
		if p[name] == "" {
			return false
		}
	}
	return true
}

// knockers returns new instances of the systems that hide the door.
func (b *bench) knockers() []system {
	p := b.programs
	systems := []system{b.wall(plain{})}
	if p.has("knockd", "nft") {
		systems = append(systems, &knockd{binary: p["knockd"], nft: p["nft"]})
	}
	systems = append(systems, b.fwknopd(false)...)
	if p.has("nft") {
		systems = append(systems, &recipe{nft: p["nft"]})
	}
	return systems
}

// wall returns a knockwall whose door opens in a way.
func (b *bench) wall(w way) system {
	return &knockwall{title: report.Knockwall, binary: b.programs["knockwall"], way: w}
}

// fwknopd returns fwknopd, if it is installed. ours is that of its client.
func (b *bench) fwknopd(ours bool) []system {
	p := b.programs
	if !p.has("fwknopd", "fwknop", "iptables") {
		return nil
	}
	return []system{&fwknop{binary: p["fwknopd"], iptables: p["iptables"], stockClient: &stockClient{binary: p["fwknop"], ours: ours}}}
}

// keyed returns a knockwall for signed knocks, beside one for a sequence and fwknopd.
func (b *bench) keyed() []system {
	other := &knockwall{title: otherWay, binary: b.programs["knockwall"], way: plain{}}
	return append([]system{b.wall(&signed{}), other}, b.fwknopd(false)...)
}

// otherWay is the name of a knockwall with a sequence, beside one whose door opens in
// another way.
const otherWay = "by a sequence"

// forFwknop returns a knockwall for fwknop's clients, and fwknopd, if that is installed.
func (b *bench) forFwknop() []system {
	if !b.programs.has("fwknop") {
		return nil
	}
	return append([]system{b.wall(&stockClient{binary: b.programs["fwknop"], ours: true})}, b.fwknopd(true)...)
}

// queues returns the loops that only accept packets.
func (b *bench) queues() []system {
	var systems []system
	if b.programs.has("queue C") {
		systems = append(systems, &queue{title: "queue C", command: []string{b.programs["queue C"]}})
	}
	return append(systems,
		&queue{title: "queue Go", command: []string{os.Args[0], loopArgument, "go"}},
		&queue{title: "queue go-nfqueue", command: []string{os.Args[0], loopArgument, "go-nfqueue"}})
}
