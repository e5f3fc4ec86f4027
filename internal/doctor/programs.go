package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
)

// socket is a TCP socket as inet_diag describes it.
type socket struct {
	local, remote netip.AddrPort
	inode         uint64
	cgroup        uint64 // 0: unknown
}

const (
	tcpEstablished = 1 // net/tcp_states.h
	tcpListen      = 10
)

// sockets returns the TCP sockets in a state. If to is not nil, it returns only those
// with a remote port in that range. See struct inet_diag_req_v2, inet_diag_msg and
// inet_diag_bc_op of linux/inet_diag.h.
func sockets(state int, to *packet.PortRange) (all []socket, err error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("listing the kernel's sockets: %w", err)
	}
	defer conn.Close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, 56)
		request[0], request[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(request[4:], 1<<state)
		if to != nil {
			request = append(request, toPorts(*to)...)
		}
		messages, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump}, Data: request})
		if errors.Is(err, unix.ENOENT) {
			continue // no IPv6, or no CONFIG_INET_TCP_DIAG, and then nothing is known
		}
		if err != nil {
			return nil, fmt.Errorf("listing the kernel's sockets: %w", err)
		}
		for _, m := range messages {
			const size, attribute = 72, 21 // INET_DIAG_CGROUP_ID
			if len(m.Data) < size {
				continue
			}
			s := socket{
				local:  netip.AddrPortFrom(addressIn(m.Data[0], m.Data[8:24]), binary.BigEndian.Uint16(m.Data[4:])),
				remote: netip.AddrPortFrom(addressIn(m.Data[0], m.Data[24:40]), binary.BigEndian.Uint16(m.Data[6:])),
				inode:  uint64(binary.NativeEndian.Uint32(m.Data[68:])),
			}
			attributes, _ := netlink.UnmarshalAttributes(m.Data[size:])
			for _, a := range attributes {
				if a.Type == attribute && len(a.Data) == 8 {
					s.cgroup = binary.NativeEndian.Uint64(a.Data)
				}
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func addressIn(family byte, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

// toPorts returns a filter by remote port. It has two comparisons, each followed by an
// operation that carries the port. A comparison has the offset of the next one, and an
// offset beyond the end, which rejects.
func toPorts(r packet.PortRange) []byte {
	const attribute, atLeast, atMost = 1, 4, 5 // INET_DIAG_REQ_BYTECODE, INET_DIAG_BC_D_GE and _LE
	operation := func(code, yes byte, no uint16) []byte {
		return binary.NativeEndian.AppendUint16([]byte{code, yes}, no)
	}
	code := slices.Concat(
		operation(atLeast, 8, 20), operation(0, 0, r.First),
		operation(atMost, 8, 12), operation(0, 0, r.Last))
	b, _ := netlink.MarshalAttributes([]netlink.Attribute{{Type: attribute, Data: code}})
	return b
}

// programs finds the owner of a socket: a process if it is visible, else a systemd unit.
type programs struct {
	holders map[uint64][]int  // process ids by the inode of their socket
	units   map[uint64]string // service names by cgroup
}

// The limits of the search for owners.
const (
	maxCgroups    = 10000
	lookForAtMost = 250 * time.Millisecond
)

var errManyProcesses = errors.New("this host has so many processes that doctor did not read all of them")

var errHidden = errors.New("seeing which programs own some of the sockets takes root")

// programsOf finds the owners of sockets.
func programsOf(all []socket) (*programs, error) {
	p := &programs{holders: map[uint64][]int{}, units: map[uint64]string{}}
	end := time.Now().Add(lookForAtMost)
	wanted, unknown := map[uint64]bool{}, map[uint64]bool{}
	for _, s := range all {
		wanted[s.inode] = true
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing the processes: %w", err)
	}
	for _, process := range processes {
		id, err := strconv.Atoi(process.Name())
		if err != nil || id == 1 && commandOf(id) == "systemd" { // systemd holds the sockets of all units
			continue
		}
		if time.Now().After(end) {
			return p, errManyProcesses
		}
		folder := filepath.Join("/proc", process.Name(), "fd")
		open, _ := os.ReadDir(folder) // it fails for other users' processes and for processes that have ended
		for _, fd := range open {
			target, _ := os.Readlink(filepath.Join(folder, fd.Name()))
			number, _ := strings.CutPrefix(target, "socket:[")
			if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); err == nil && wanted[inode] && !slices.Contains(p.holders[inode], id) {
				p.holders[inode] = append(p.holders[inode], id)
			}
		}
	}
	for _, s := range all {
		if len(p.holders[s.inode]) == 0 && s.cgroup != 0 {
			unknown[s.cgroup] = true
		}
	}
	if len(unknown) > 0 {
		p.findUnits(unknown, end)
	}
	for _, s := range all {
		if len(p.holders[s.inode]) == 0 && p.units[s.cgroup] == "" && os.Geteuid() != 0 {
			return p, errHidden
		}
	}
	return p, nil
}

// findUnits finds services by the inode of their folder, which is the id of their cgroup.
func (p *programs) findUnits(cgroups map[uint64]bool, end time.Time) {
	seen := 0
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if seen++; seen > maxCgroups || time.Now().After(end) {
			return fs.SkipAll
		}
		info, err := d.Info()
		if err != nil || !strings.HasSuffix(path, ".service") {
			return nil
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && cgroups[stat.Ino] {
			p.units[stat.Ino] = filepath.Base(path)
		}
		return nil
	})
}

// shared names the program that owns both sockets, or returns "". With byChild, a child
// of the program may own the first one: some programs leave their connections to
// children.
func (p *programs) shared(a, b socket, byChild bool) string {
	for _, id := range p.holders[a.inode] {
		for _, holder := range p.holders[b.inode] {
			if holder == id || byChild && holder == host.ParentOf(id) {
				return processName(holder)
			}
		}
	}
	if len(p.holders[a.inode])+len(p.holders[b.inode]) > 0 || a.cgroup != b.cgroup {
		return ""
	}
	return printable.Quote(p.units[a.cgroup])
}

func processName(id int) string { return fmt.Sprintf("%s (process %d)", commandOf(id), id) }

func commandOf(id int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", id))
	if err != nil {
		return "a program"
	}
	return printable.Quote(strings.TrimSuffix(string(name), "\n"))
}
