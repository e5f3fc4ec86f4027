package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// A real client is another machine. So when times are measured, the client has the first
// core for itself and the server's daemons have the other cores, if there are any.
// Otherwise the times would depend on whether the scheduler runs the client or the daemon
// first on the same core.

// onServersCores binds this thread, and the processes that it starts, to the server's cores.
func onServersCores() error {
	var set unix.CPUSet
	for core := 1; core < runtime.NumCPU(); core++ {
		set.Set(core)
	}
	return runOn(set)
}

// onClientsCore binds this thread to the client's core.
func onClientsCore() error {
	var set unix.CPUSet
	set.Set(0)
	return runOn(set)
}

// onAnyCore lets this thread run on all cores again.
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
