//go:build linux

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/nfnetlink"
	"github.com/knockwall/knockwall/internal/packet"
)

// This file reads the windows of a table, one datagram at a time, because there may be a
// million. The kernel begins each datagram at the first element of the set and passes over
// those that it has sent. So the time grows with the square of the number: 100,000 windows
// take 0.7 s, and a million more than a minute.

// maxReading is how long reading takes. Where there are more windows, some are not read.
const maxReading = 3 * time.Second

// reading is what was read of the elements of a table's sets, if not all of them.
type reading struct {
	table      string
	generation uint32
	spoiled    map[string]bool // sets with an element that no wall has added
}

// Windows reads the windows of a table that [Kernel.Standing] has found. It calls begin, and
// then take with each window. Where another process's change interrupts that, it does so
// again. It reports whether it has read all windows. There may be more than can be read in
// some seconds.
func (k *Kernel) Windows(s *Standing, begin func(), take func(Window)) (all bool, err error) {
	err = k.unhindered(func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		begin()
		all = false
		err := Whole(k.conn, func() error {
			generation, err := k.conn.GetGen()
			if err != nil {
				return err
			}
			k.seen = reading{table: s.Table, generation: generation.ID}
			k.seen.spoiled, all, err = k.readSets(s.Table, s.sets, s.doors, take)
			return err
		})
		if !all && errors.Is(err, unix.ERESTART) {
			return nil // some are missing anyway
		}
		return err
	})
	if errors.Is(err, unix.ERESTART) { // others change tables all the time
		return false, nil
	}
	return all && err == nil, err
}

// Generation returns the number of the last change of any table.
func (k *Kernel) Generation() (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g, err := k.conn.GetGen()
	if err != nil {
		return 0, fmt.Errorf("asking for the generation of the tables: %w", err)
	}
	return g.ID, nil
}

// IsUnchangedSince reports whether no table has changed since a generation, at which the
// caller knew all windows of the table of that name. [Kernel.Install] then believes that.
func (k *Kernel) IsUnchangedSince(generation uint32, table string) bool {
	now, err := k.Generation()
	if err != nil || now != generation {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = reading{table, generation, nil}
	return true
}

// spoil makes Install replace the sets in which another process has put an element that is
// no window. It reads the elements unless they were read in this generation.
func (k *Kernel) spoil(name string, old *found, generation uint32) error {
	if k.seen.table != name || k.seen.generation != generation {
		spoiled, _, err := k.readSets(name, old.sets, old.doors, func(Window) {})
		if err != nil {
			return err
		}
		k.seen = reading{name, generation, spoiled}
	}
	for set := range k.seen.spoiled {
		old.shapes[set] = shape{}
	}
	return nil
}

// readSets reads sets of windows. It returns those with an element without a timeout, which
// no window is, and whether it has read all of them.
func (k *Kernel) readSets(table string, sets []family, doors map[uint32]standingDoor, take func(Window)) (spoiled map[string]bool, all bool, err error) {
	end := time.Now().Add(maxReading)
	spoiled = map[string]bool{}
	for _, f := range sets {
		all, err := k.readElements(table, openSet(f), end, func(e *setElement) {
			w, spoils := f.window(e, doors)
			switch {
			case spoils:
				spoiled[openSet(f)] = true
			case w.Left > 0:
				take(w)
			}
		})
		if err != nil {
			return nil, false, fmt.Errorf("reading the open windows: %w", err)
		}
		if !all {
			return spoiled, false, nil
		}
	}
	return spoiled, true, nil
}

// setElement is an element of a set, as the kernel lists it. Its slices are valid until the
// next one is read.
type setElement struct {
	key              []byte
	timeout, expires time.Duration
	userData         []byte
}

// window returns the window that an element is, without time left if it is none. An element
// without a timeout would be one without an end: no wall has added it.
func (f family) window(e *setElement, doors map[uint32]standingDoor) (w Window, spoils bool) {
	if e.timeout == 0 && e.expires == 0 {
		return w, true
	}
	addr, link, number, ok := f.sourceAt(e.key)
	door, known := doors[number]
	bits, lookedUp := door.bits[f.suffix]
	if ok && known && lookedUp {
		source := packet.Source{Prefix: netip.PrefixFrom(addr, bits), Link: link}
		w = Window{Door: door.name, Source: source, Left: e.expires, Opener: e.opener()}
	}
	return w, false
}

func (e *setElement) opener() method.Opener {
	if len(e.userData) == 0 {
		return method.Opener{}
	}
	comment, _ := userdata.GetString(e.userData, userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
	return method.ParseOpener(comment)
}

// maxDatagram is the largest datagram of a listing. A smaller buffer would make the kernel
// send smaller ones.
const maxDatagram = 64 << 10

// readElements calls each with the elements of a set. If that is not done by end, it stops,
// and reports false.
func (k *Kernel) readElements(table, set string, end time.Time, each func(*setElement)) (all bool, err error) {
	if k.listing == nil {
		if k.listing, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return false, err
		}
	}
	defer func() {
		if !all { // the rest of the answer would come
			k.listing.Close()
			k.listing = nil
		}
	}()
	names, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(table + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	})
	if err != nil {
		return false, err
	}
	if _, err := k.listing.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, names...),
	}); err != nil {
		return false, err
	}
	raw, err := k.listing.SyscallConn()
	if err != nil {
		return false, err
	}
	datagram := make([]byte, maxDatagram)
	for time.Now().Before(end) {
		var n int
		var readErr error
		if err := raw.Read(func(fd uintptr) bool {
			n, readErr = unix.Read(int(fd), datagram)
			return readErr != unix.EAGAIN
		}); err != nil {
			return false, err
		}
		if readErr != nil {
			return false, os.NewSyscallError("read", readErr)
		}
		done, err := eachElement(datagram[:n], each)
		if done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// errTruncated says that the kernel has sent what is no message.
var errTruncated = errors.New("the kernel's answer cannot be read")

// eachElement calls each with the elements in a datagram. It reports whether the listing is
// at its end.
func eachElement(datagram []byte, each func(*setElement)) (done bool, err error) {
	for len(datagram) > 0 {
		m, rest, ok := nfnetlink.NextMessage(datagram)
		if !ok {
			return false, errTruncated
		}
		switch m.Kind {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return false, m.Refusal()
		case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM:
			attribute(m.Attributes(), unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list []byte) {
				attribute(list, unix.NFTA_LIST_ELEM, func(text []byte) {
					e := elementOf(text)
					each(&e)
				})
			})
		}
		datagram = rest
	}
	return false, nil
}

// attribute calls each with the values of the attributes of a kind.
func attribute(attributes []byte, kind uint16, each func(value []byte)) {
	for {
		a, rest, ok := nfnetlink.NextAttribute(attributes)
		if !ok {
			return
		}
		if a.Kind == kind {
			each(a.Value)
		}
		attributes = rest
	}
}

func elementOf(attributes []byte) (e setElement) {
	milliseconds := func(value []byte) time.Duration {
		if len(value) != 8 {
			return 0
		}
		return time.Duration(binary.BigEndian.Uint64(value)) * time.Millisecond
	}
	for {
		a, rest, ok := nfnetlink.NextAttribute(attributes)
		if !ok {
			return e
		}
		switch a.Kind {
		case unix.NFTA_SET_ELEM_KEY:
			attribute(a.Value, unix.NFTA_DATA_VALUE, func(value []byte) { e.key = value })
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.timeout = milliseconds(a.Value)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.expires = milliseconds(a.Value)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.userData = a.Value
		}
		attributes = rest
	}
}
