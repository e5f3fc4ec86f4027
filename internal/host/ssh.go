package host

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// SSH is the two ends of an ssh connection to this host.
type SSH struct{ Client, Server netip.AddrPort }

// Session returns the ssh connection over which this process was started, if there is
// one. sshd sets it in the environment of its children, which sudo does not pass on. So
// Session also reads the environment of the ancestors.
func Session() (SSH, bool) {
	for id := os.Getpid(); id > 1; id = ParentOf(id) {
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", id))
		if err != nil {
			continue
		}
		for variable := range bytes.SplitSeq(environment, []byte{0}) {
			if value, ok := bytes.CutPrefix(variable, []byte("SSH_CONNECTION=")); ok {
				return ParseSession(string(value))
			}
		}
	}
	return SSH{}, false
}

// String returns the session as sshd writes it. ParseSession is the reverse.
func (s SSH) String() string {
	return fmt.Sprintf("%s %d %s %d", s.Client.Addr(), s.Client.Port(), s.Server.Addr(), s.Server.Port())
}

// ParseSession parses the client's address and port and the server's, as sshd writes them
// (SSH_CONNECTION in ssh(1)).
func ParseSession(text string) (s SSH, ok bool) {
	fields := strings.Fields(text)
	if len(fields) != 4 {
		return s, false
	}
	for i, to := range []*netip.AddrPort{&s.Client, &s.Server} {
		addr, err := netip.ParseAddr(fields[2*i])
		port, portErr := strconv.ParseUint(fields[2*i+1], 10, 16)
		if err != nil || portErr != nil {
			return s, false
		}
		*to = netip.AddrPortFrom(addr.Unmap().WithZone(""), uint16(port))
	}
	return s, true
}
