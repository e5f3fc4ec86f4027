package doctor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// xtables describes the tables of x_tables: where the kernel lists them, how to read
// them, and the layout of struct ipt_entry and struct ip6t_entry
// (linux/netfilter_ipv4/ip_tables.h and linux/netfilter_ipv6/ip6_tables.h).
var xtables = []struct {
	family, socket, level int
	list, module, name    string
	protocol              int // offset of the protocol in an entry
	offsets               int // offset of target_offset and next_offset in an entry
	entry                 int // length of an entry without matches and target
}{
	{unix.NFPROTO_IPV4, unix.AF_INET, unix.SOL_IP, "/proc/thread-self/net/ip_tables_names", "ip_tables", "iptables", 80, 88, 112},
	{unix.NFPROTO_IPV6, unix.AF_INET6, unix.SOL_IPV6, "/proc/thread-self/net/ip6_tables_names", "ip6_tables", "ip6tables", 128, 140, wide(148) + 16},
}

// wide returns the offset of a 64-bit field after that many bytes of a struct. C aligns
// the field to eight bytes, and to four on 386.
func wide(behind int) int {
	if runtime.GOARCH == "386" {
		return behind
	}
	return (behind + 7) &^ 7
}

const (
	getInfo    = 64 // IPT_SO_GET_INFO and IP6T_SO_GET_INFO
	getEntries = 65
	tableName  = 32 // XT_TABLE_MAXNAMELEN
	prerouting = 0  // NF_INET_PRE_ROUTING
	hookCount  = 5  // NF_INET_NUMHOOKS
	maxLegacy  = 4 << 20
)

// legacyWays returns the ways in tables of iptables-legacy.
func legacyWays() (ways []way, err error) {
	for _, x := range xtables {
		names, readErr := os.ReadFile(x.list)
		if errors.Is(readErr, os.ErrNotExist) {
			continue // the kernel has no such tables
		}
		if readErr != nil && isUnused(x.module) {
			continue
		}
		if readErr != nil {
			err = errors.Join(err, notPermitted("seeing whether "+x.name+"-legacy has rules", readErr))
			continue
		}
		for _, table := range []string{"nat", "mangle"} {
			// Reading a table that does not exist would create it.
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

// moduleFolder has a folder for each module of the kernel.
var moduleFolder = "/sys/module"

// isUnused reports whether no table can lead packets elsewhere, because no module that makes
// such a table uses the module that holds tables. Only root may read the list of the tables,
// and systemd loads that module on every host. It is false if the module is a part of the
// kernel itself: then others may be, too.
func isUnused(module string) bool {
	users, err := os.ReadDir(filepath.Join(moduleFolder, module, "holders"))
	return err == nil && !slices.ContainsFunc(users, func(u os.DirEntry) bool {
		return strings.HasSuffix(u.Name(), "_nat") || strings.HasSuffix(u.Name(), "_mangle")
	})
}

// bounds are the offsets of the first and last entry of each hook's chain. valid has one
// bit for each hook that the table has.
type bounds struct {
	valid       uint32
	first, last [hookCount]uint32
}

// readLegacy reads a table's entries (struct ipt_getinfo, struct ipt_get_entries).
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
		return nil, hooks, fmt.Errorf("it has %d bytes, which is too much to read", size)
	}
	head := wide(tableName + 4) // after the size
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

// legacyRules parses entries, except those in the chains of hooks other than prerouting.
// It includes the administrator's own chains, whichever hook calls them.
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

// legacyRule parses an entry. After its head come the matches and the target: each is a
// struct xt_entry_match or xt_entry_target with a length, a name, a revision, and its own
// data.
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
