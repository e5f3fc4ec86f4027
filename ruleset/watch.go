//go:build linux

package ruleset

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Change is what somebody else has done to tables.
type Change struct {
	// Tables are those of the family inet in which anything is no longer what it
	// was. It is empty if the kernel's account of it was lost: then any may have
	// changed.
	Tables []string
	// By is the name and the id of the process that did it, if that is known.
	By string
}

// Watcher hears of changes until it is closed.
type Watcher struct {
	conn    *netlink.Conn
	closing chan struct{}
	done    chan struct{}
}

// watchBuffer is how many bytes of messages the kernel keeps while the daemon is busy:
// those of some transactions of a wall of many doors.
const watchBuffer = 4 << 20

// Watch tells changed of each transaction that is not k's own, as soon as the
// kernel has committed it, and failed when that can no longer be heard. What rules
// put into sets, and what leaves them when its time is up, is no transaction's.
func (k *Kernel) Watch(changed func(Change), failed func(error)) (*Watcher, error) {
	own, err := k.conn.GetPortID()
	if err != nil {
		return nil, fmt.Errorf("asking for the port of a netlink socket: %w", err)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	// Beyond rmem_max this takes CAP_NET_ADMIN of the initial user namespace; what can be
	// had is enough to hear that something has changed, if not what.
	_ = conn.SetReadBuffer(watchBuffer)
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	w := &Watcher{conn: conn, closing: make(chan struct{}), done: make(chan struct{})}
	go w.read(own, changed, failed)
	return w, nil
}

// Close ends the watch. Nothing is told of any more once it returns.
func (w *Watcher) Close() error {
	close(w.closing)
	err := w.conn.Close()
	<-w.done
	return err
}

func (w *Watcher) read(own uint32, changed func(Change), failed func(error)) {
	defer close(w.done)
	var c Change
	for {
		messages, err := w.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			c = Change{}
			changed(c)
			continue
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			select {
			case <-w.closing:
			default:
				failed(fmt.Errorf("watching nftables: %w", err))
			}
			return
		}
		for _, m := range messages {
			if m.Header.PID == own || m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
				continue
			}
			// A transaction's changes come first, and then who made it.
			if m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
				if c.Tables != nil {
					c.By = process(m)
					changed(c)
				}
				c = Change{}
				continue
			}
			if name, ok := changedTable(m); ok && (len(c.Tables) == 0 || c.Tables[len(c.Tables)-1] != name) {
				c.Tables = append(c.Tables, name)
			}
		}
	}
}

// changedTable returns the name of the table that a message is about, if it is
// about one of the family inet.
func changedTable(m netlink.Message) (name string, ok bool) {
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN,
		unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE, unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET,
		unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_NEWOBJ, unix.NFT_MSG_DELOBJ:
	default:
		return "", false
	}
	if len(m.Data) < genericHeader || m.Data[0] != byte(nftables.TableFamilyINet) {
		return "", false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[genericHeader:])
	if err != nil {
		return "", false
	}
	for attributes.Next() {
		if attributes.Type() == tableNameAttr {
			name, ok = attributes.String(), true
		}
	}
	return name, ok && attributes.Err() == nil
}

// Of linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
const (
	genericHeader = 4                   // bytes of struct nfgenmsg
	tableNameAttr = unix.NFTA_SET_TABLE // and the same number for what else is in a table
)

// process returns who made a transaction, as the kernel says.
func process(m netlink.Message) string {
	if len(m.Data) < genericHeader {
		return ""
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[genericHeader:])
	if err != nil {
		return ""
	}
	attributes.ByteOrder = binary.BigEndian
	var name string
	var id uint32
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_GEN_PROC_NAME:
			name = attributes.String()
		case unix.NFTA_GEN_PROC_PID:
			id = attributes.Uint32()
		}
	}
	if attributes.Err() != nil || name == "" {
		return ""
	}
	return fmt.Sprintf("%s (process %d)", name, id)
}
