// Package host describes the host: the ports on which programs listen, the interfaces of
// default routes, and the host's addresses.
package host

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
)

// Look examines the host in the network namespace of the caller. On an error, the result
// lacks what could not be read.
func Look() (effective.Host, error) {
	ports, portsErr := Ports()
	uplinks, uplinksErr := Uplinks()
	addresses, addressesErr := Addresses()
	return effective.Host{Served: ports, Uplinks: uplinks, Addresses: addresses}, errors.Join(portsErr, uplinksErr, addressesErr)
}

// Uplinks returns the interfaces of default routes in any routing table, by index.
func Uplinks() (map[uint32]string, error) {
	dump, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("listing the kernel's routes: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's routes: %w", err)
	}
	uplinks := map[uint32]string{}
	for i := range messages {
		for _, index := range defaultRoute(&messages[i]) {
			if link, err := net.InterfaceByIndex(int(index)); err == nil && link.Flags&net.FlagLoopback == 0 {
				uplinks[index] = link.Name
			}
		}
	}
	return uplinks, nil
}

// defaultRoute returns the interfaces of a route if it is a default route: struct rtmsg
// and struct rtnexthop of linux/rtnetlink.h.
func defaultRoute(m *syscall.NetlinkMessage) (interfaces []uint32) {
	const destinationLength, kind = 1, 7 // offsets in struct rtmsg
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg || m.Data[destinationLength] != 0 || m.Data[kind] != unix.RTN_UNICAST {
		return nil
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return nil
	}
	for _, a := range attributes {
		switch {
		case a.Attr.Type == unix.RTA_OIF && len(a.Value) == 4:
			interfaces = append(interfaces, binary.NativeEndian.Uint32(a.Value))
		case a.Attr.Type == unix.RTA_MULTIPATH:
			for hop := a.Value; len(hop) >= unix.SizeofRtNexthop; {
				length := int(binary.NativeEndian.Uint16(hop))
				if length < unix.SizeofRtNexthop || length > len(hop) {
					break
				}
				interfaces = append(interfaces, binary.NativeEndian.Uint32(hop[4:]))
				hop = hop[length:]
			}
		}
	}
	return interfaces
}

// Addresses returns the addresses of all interfaces.
func Addresses() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing this host's addresses: %w", err)
	}
	here := map[netip.Addr]bool{}
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			here[prefix.Addr().Unmap()] = true
		}
	}
	return here, nil
}

// tables are the files that list the sockets of the reader's network namespace. state is
// the fourth column of a socket that receives from anybody: TCP_LISTEN, and for UDP
// TCP_CLOSE, which means not connected (net/tcp_states.h).
var tables = []struct {
	path     string
	protocol packet.Protocol
	state    string
}{
	{"/proc/thread-self/net/tcp", packet.TCP, "0A"},
	{"/proc/thread-self/net/tcp6", packet.TCP, "0A"},
	{"/proc/thread-self/net/udp", packet.UDP, "07"},
	{"/proc/thread-self/net/udp6", packet.UDP, "07"},
}

// Listener is a socket that receives from anybody.
type Listener struct {
	Port  packet.Port
	Local netip.Addr // the address that it listens on; unspecified: all
}

// Ports returns the ports on which programs listen, at any address. The error names the
// list of the kernel that could not be read. A kernel without IPv6 has no lists for it,
// which is no error.
func Ports() (map[packet.Port]bool, error) {
	all, err := Listeners()
	if err != nil {
		return nil, err
	}
	ports := map[packet.Port]bool{}
	for _, l := range all {
		ports[l.Port] = true
	}
	return ports, nil
}

// Listeners returns the sockets behind [Ports].
func Listeners() (all []Listener, err error) {
	for _, t := range tables {
		f, err := os.Open(t.path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing the sockets that listen: %w", err)
		}
		lines := bufio.NewScanner(f)
		lines.Scan() // skip the header
		for lines.Scan() {
			if local, n, ok := port(lines.Text(), t.state); ok {
				all = append(all, Listener{packet.Port{Number: n, Protocol: t.protocol}, local})
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("listing the sockets that listen: reading %s: %w", t.path, err)
		}
	}
	return all, nil
}

// port parses a line of these files and returns its local address and port, if it has the
// wanted state: "0: 00000000:0016 00000000:0000 0A …". Numbers are hexadecimal. An
// address is written as 32-bit words in the kernel's byte order.
func port(line, state string) (local netip.Addr, number uint16, ok bool) {
	columns := strings.Fields(line)
	if len(columns) < 4 || columns[3] != state {
		return local, 0, false
	}
	address, text, _ := strings.Cut(columns[1], ":")
	n, err := strconv.ParseUint(text, 16, 16)
	b, addressErr := hex.DecodeString(address)
	if err != nil || addressErr != nil || len(b)%4 != 0 {
		return local, 0, false
	}
	for word := b; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	local, ok = netip.AddrFromSlice(b)
	return local.Unmap(), uint16(n), ok
}
