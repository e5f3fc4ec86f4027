package flood

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/forge"
	"github.com/knockwall/knockwall/internal/packet"
)

// All knocks are SYNs, so that a flood knocks as well.
var synKnocks = []packet.Port{lab.TCP(4113), lab.TCP(27911), lab.TCP(1840)}

// On a slow machine a flood needs time between two knocks of a source.
const synRules = `door "ssh" {
  ports       = [22]
  sequence    = [4113, 27911, 1840]
  seq_timeout = "2m"
}`

// follow sends SYNs as fast as this machine makes them and the daemon reads them. Faster
// packets are lost, on every machine, and a client that knocks at that time must knock
// again.
func follow(d *lab.Daemon, s forge.Stream, ports ...uint16) *lab.Flood {
	d.Lab.T.Helper()
	s.Behind = func() bool { return behind(d) }
	return d.Lab.Stream(s, ports...)
}

// fallenBehind is how many bytes may wait in a socket of the daemon. In batches that is
// some thousand knocks, and less than the limit of any user's sockets.
const fallenBehind = 256 << 10

// behind reports whether the daemon has fallen behind. The flood calls it from a thread
// that cannot end the test, so on an error it returns false and the flood goes on.
func behind(d *lab.Daemon) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", d.Cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line) // socket, protocol, port, groups, bytes to read
		if len(fields) < 5 || fields[1] != strconv.Itoa(unix.NETLINK_NETFILTER) {
			continue
		}
		if waiting, err := strconv.Atoi(fields[4]); err == nil && waiting > fallenBehind {
			return true
		}
	}
	return false
}
