// Package listening tells on which ports programs of this host listen.
package listening

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
)

// The files that list sockets, of the network namespace of who reads them, and
// what their fourth column says of one that takes what comes: TCP_LISTEN, and for
// UDP TCP_CLOSE, which is one that is not connected (net/tcp_states.h).
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

// Ports returns the ports on which something listens, at whatever address. The
// error says which of the kernel's lists could not be read; a kernel without IPv6
// has none of that.
func Ports() (map[packet.Port]bool, error) {
	ports := map[packet.Port]bool{}
	for _, t := range tables {
		f, err := os.Open(t.path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking who listens: %w", err)
		}
		lines := bufio.NewScanner(f)
		lines.Scan() // the head
		for lines.Scan() {
			if n, ok := port(lines.Text(), t.state); ok {
				ports[packet.Port{Number: n, Protocol: t.protocol}] = true
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("looking who listens: reading %s: %w", t.path, err)
		}
	}
	return ports, nil
}

// port returns the local port of a line of these files, if its state is the one
// that is wanted: "0: 00000000:0016 00000000:0000 0A …", where numbers are hex.
func port(line, state string) (uint16, bool) {
	columns := strings.Fields(line)
	if len(columns) < 4 || columns[3] != state {
		return 0, false
	}
	_, number, _ := strings.Cut(columns[1], ":")
	n, err := strconv.ParseUint(number, 16, 16)
	return uint16(n), err == nil
}
