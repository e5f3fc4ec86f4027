package doctor

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/printable"
)

// findBPF finds BPF programs that decide about packets before the wall does (XDP), or
// that choose the socket for packets that the wall admits (sk_lookup). It cannot tell
// what these programs do.
func findBPF(h *Host) (findings []Finding, err error) {
	links, err := linkList()
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces: %w", err)
	}
	for _, l := range links {
		if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached && l.Attrs().Name != "lo" {
			findings = append(findings, Finding{Severity: Warning,
				Problem: fmt.Sprintf("A BPF program (XDP, id %d) at %s sees packets before the wall. The wall does not see packets that this program drops or forwards.", xdp.ProgId, printable.Quote(l.Attrs().Name)),
				Cure:    fmt.Sprintf("Make sure that it passes knocks and packets to guarded ports. `bpftool prog show id %d` names it.", xdp.ProgId)})
		}
	}
	programs, err := socketLookups()
	for _, id := range programs {
		findings = append(findings, Finding{Severity: Warning,
			Problem: fmt.Sprintf("A BPF program (sk_lookup, id %d) chooses sockets for new connections. It may lead connections to other ports to a guarded service.", id),
			Cure:    fmt.Sprintf("Make sure that it leads to no guarded service. `bpftool prog show id %d` names it.", id)})
	}
	return findings, err
}

// socketLookups returns the ids of the sk_lookup programs of this network namespace. It
// uses BPF_PROG_QUERY of linux/bpf.h.
func socketLookups() ([]uint32, error) {
	const query, skLookup, most = 16, 36, 64
	namespace, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	var ids [most]uint32
	attributes := struct {
		target, attachType, queryFlags, attachFlags uint32
		programs                                    uint64
		count                                       uint32
		_                                           uint32
	}{target: uint32(namespace.Fd()), attachType: skLookup, programs: uint64(uintptr(unsafe.Pointer(&ids))), count: most}
	_, _, errno := unix.Syscall(unix.SYS_BPF, query, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	const listing = "listing BPF programs that choose sockets (sk_lookup)"
	switch errno {
	case 0:
		return ids[:attributes.count], nil
	case unix.ENOSYS, unix.EINVAL: // the kernel does not support such programs
		return nil, nil
	case unix.EPERM:
		return nil, notPermitted(listing, errno)
	}
	return nil, fmt.Errorf("%s: %w", listing, errno)
}
