package doctor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// The tables of x_tables, of linux/netfilter_ipv4/ip_tables.h and its twin for IPv6: where
// the kernel lists them, how they are asked for, and how struct ipt_entry and struct
// ip6t_entry are laid out.
var xtables = []struct {
	family, socket, level int
	list, name            string
	protocol              int // where it is in an entry
	offsets               int // where target_offset and next_offset are in an entry
	entry                 int // how long one is, without matches and target
}{
	{unix.NFPROTO_IPV4, unix.AF_INET, unix.SOL_IP, "/proc/thread-self/net/ip_tables_names", "iptables", 80, 88, 112},
	{unix.NFPROTO_IPV6, unix.AF_INET6, unix.SOL_IPV6, "/proc/thread-self/net/ip6_tables_names", "ip6tables", 128, 140, wide(148) + 16},
}

// wide returns where a number of 64 bits is in a struct, behind so many bytes. C aligns it
// to eight bytes, and to four on 386.
func wide(behind int) int {
	if runtime.GOARCH == "386" {
		return behind
	}
	return (behind + 7) &^ 7
}

const (
	getInfo    = 64 // IPT_SO_GET_INFO, and that of IPv6
	getEntries = 65
	tableName  = 32 // XT_TABLE_MAXNAMELEN
	prerouting = 0  // NF_INET_PRE_ROUTING
	hookCount  = 5  // NF_INET_NUMHOOKS
	maxLegacy  = 4 << 20
)

// legacyWays returns the ways of iptables' own tables, which are not nftables'.
func legacyWays() (ways []way, err error) {
	for _, x := range xtables {
		names, readErr := os.ReadFile(x.list)
		if errors.Is(readErr, os.ErrNotExist) {
			continue // the kernel has none
		}
		if readErr != nil {
			err = errors.Join(err, fmt.Errorf("whether %s-legacy has rules is only for root to see", x.name))
			continue
		}
		for _, table := range []string{"nat", "mangle"} {
			// Who asks for a table that there is not makes one.
			if !slices.Contains(strings.Fields(string(names)), table) {
				continue
			}
			blob, hooks, readErr := readLegacy(x.socket, x.level, table)
			if readErr != nil {
				err = errors.Join(err, fmt.Errorf("reading the table %s of %s-legacy: %w", table, x.name, readErr))
				continue
			}
			where := fmt.Sprintf("table %s of %s-legacy", table, x.name)
			for _, r := range legacyRules(blob, hooks, x.family, x.protocol, x.offsets, x.entry) {
				switch {
				case r.leads == nil || r.match.none:
				case r.leads.unknown:
					err = errors.Join(err, fmt.Errorf("%s: %w", where, errNotPlain))
				default:
					ways = append(ways, way{r.match, *r.leads, where})
				}
			}
		}
	}
	return ways, err
}

// bounds are from where to where in a table the chain of each hook goes, which are there
// as of valid.
type bounds struct {
	valid       uint32
	first, last [hookCount]uint32
}

// readLegacy reads a table's entries: struct ipt_getinfo and struct ipt_get_entries.
func readLegacy(family, level int, table string) (entries []byte, hooks bounds, err error) {
	socket, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, hooks, err
	}
	defer unix.Close(socket)
	info := make([]byte, tableName+4+2*4*hookCount+4+4)
	copy(info, table)
	if err := getsockopt(socket, level, getInfo, info); err != nil {
		return nil, hooks, err
	}
	number := func(at int) uint32 { return binary.NativeEndian.Uint32(info[at:]) }
	hooks.valid = number(tableName)
	for i := range hookCount {
		hooks.first[i] = number(tableName + 4 + 4*i)
		hooks.last[i] = number(tableName + 4 + 4*hookCount + 4*i)
	}
	size := number(len(info) - 4)
	if size > maxLegacy {
		return nil, hooks, fmt.Errorf("it has %d bytes, which is too much to look at", size)
	}
	head := wide(tableName + 4) // behind the size
	answer := make([]byte, head+int(size))
	copy(answer, table)
	binary.NativeEndian.PutUint32(answer[tableName:], size)
	if err := getsockopt(socket, level, getEntries, answer); err != nil {
		return nil, hooks, err
	}
	return answer[head:], hooks, nil
}

func getsockopt(socket, level, option int, buffer []byte) error {
	length := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// legacyRules reads entries, but for those of the chains of other hooks. Whether a chain of
// the administrator's own is called from the first hook is not looked at.
func legacyRules(blob []byte, hooks bounds, family, protocolAt, offsetsAt, entry int) (rules []rule) {
	for at := 0; at+entry <= len(blob) && len(rules) < maxRules; {
		e := blob[at:]
		targetAt := int(binary.NativeEndian.Uint16(e[offsetsAt:]))
		next := int(binary.NativeEndian.Uint16(e[offsetsAt+2:]))
		if targetAt < entry || next <= targetAt || next > len(e) {
			return rules
		}
		if !hooks.elsewhere(uint32(at)) {
			rules = append(rules, legacyRule(e[:next], family, int(binary.NativeEndian.Uint16(e[protocolAt:])), targetAt, entry))
		}
		at += next
	}
	return rules
}

func (b bounds) elsewhere(at uint32) bool {
	for i := range hookCount {
		if i != prerouting && b.valid&(1<<i) != 0 && b.first[i] <= at && at <= b.last[i] {
			return true
		}
	}
	return false
}

// legacyRule reads an entry: matches and a target, each struct xt_entry_match and
// struct xt_entry_target, a length, a name and a revision before what is its own.
func legacyRule(e []byte, family, protocol, targetAt, entry int) rule {
	p := &parser{}
	p.verdict = noVerdict
	if protocol != 0 {
		p.forProtocol(packet.Protocol(protocol))
	}
	part := func(b []byte) (name string, rev uint32, info xt.InfoAny, length int) {
		const head = 32
		if len(b) < head {
			return "", 0, nil, 0
		}
		length = int(binary.NativeEndian.Uint16(b))
		if length < head || length > len(b) {
			return "", 0, nil, 0
		}
		text, _, _ := bytes.Cut(b[2:head-1], []byte{0})
		name, rev = string(text), uint32(b[head-1])
		info, err := xt.Unmarshal(name, xt.TableFamily(family), rev, b[head:length])
		if err != nil {
			info = &xt.Unknown{}
		}
		return name, rev, info, length
	}
	for at := entry; at < targetAt; {
		name, rev, info, length := part(e[at:targetAt])
		if length == 0 {
			break
		}
		p.matchXT(&expr.Match{Name: name, Rev: rev, Info: info})
		at += length
	}
	if name, rev, info, length := part(e[targetAt:]); length != 0 {
		p.targetXT(&expr.Target{Name: name, Rev: rev, Info: info})
	}
	return p.rule
}
