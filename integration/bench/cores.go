package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// A client is another machine. Where times are measured, it has the first core for
// itself, if there are others, and the server's daemons have these: otherwise what is
// measured is also how a daemon's work is put off, on the client's core, until the
// client has its answer, or the other way round.

// onServersCores has this thread, and what it starts, run on the server's cores.
func onServersCores() error {
	var set unix.CPUSet
	for core := 1; core < runtime.NumCPU(); core++ {
		set.Set(core)
	}
	return runOn(set)
}

// onClientsCore has this thread run on the client's core.
func onClientsCore() error {
	var set unix.CPUSet
	set.Set(0)
	return runOn(set)
}

// onAnyCore has this thread run wherever it likes again.
func onAnyCore() error {
	var set unix.CPUSet
	for core := range runtime.NumCPU() {
		set.Set(core)
	}
	return runOn(set)
}

func runOn(set unix.CPUSet) error {
	if runtime.NumCPU() == 1 {
		return nil
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("choosing the cores of a thread: %w", err)
	}
	return nil
}
