//go:build linux

package nft

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
)

// A watch tells of the transactions of others, with their tables and who made them, and
// never of its own daemon's.
func TestAWatchTellsOfOthersTransactionsOnly(t *testing.T) {
	const own, other = 7, 8
	message := func(pid uint32, kind uint16, attributes ...netlink.Attribute) netlink.Message {
		data, err := netlink.MarshalAttributes(attributes)
		if err != nil {
			t.Fatal(err)
		}
		return netlink.Message{
			Header: netlink.Header{PID: pid, Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)},
			Data:   append([]byte{unix.NFPROTO_INET, 0, 0, 0}, data...),
		}
	}
	inTable := func(name string) netlink.Attribute {
		return netlink.Attribute{Type: tableNameAttr, Data: append([]byte(name), 0)}
	}
	datagrams := [][]netlink.Message{
		{message(own, unix.NFT_MSG_NEWRULE, inTable("mine")), message(own, unix.NFT_MSG_NEWGEN)},
		{message(other, unix.NFT_MSG_DELRULE, inTable("theirs")), message(other, unix.NFT_MSG_NEWGEN)},
	}
	conn := nltest.Dial(func([]netlink.Message) ([]netlink.Message, error) {
		if len(datagrams) == 0 {
			return nil, errors.New("the end")
		}
		next := datagrams[0]
		datagrams = datagrams[1:]
		return next, nil
	})
	w := &Watcher{conn: conn, closing: make(chan struct{}), done: make(chan struct{})}
	var tables [][]string
	failed := 0
	w.read(own, func(c Change) { tables = append(tables, c.Tables) }, func(error) { failed++ })
	if diff := cmp.Diff([][]string{{"theirs"}}, tables); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if failed != 1 {
		t.Errorf("it has failed %d times, want once, at the end", failed)
	}
}
