//go:build linux

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Change is a change of tables by another process.
type Change struct {
	// Tables are the changed tables of the family inet. It is empty if the kernel's
	// messages were lost: then any table may have changed.
	Tables []string
	// By is the name and the ID of the process that made the change, or empty if it is
	// not known.
	By string
}

// Watcher receives changes until it is closed.
type Watcher struct {
	conn    *netlink.Conn
	closing chan struct{}
	done    chan struct{}
}

// watchBuffer is the size in bytes of the socket's receive buffer in the kernel: enough
// for some transactions of a wall with many doors.
const watchBuffer = 4 << 20

// Watch calls changed for each transaction that is not k's own, as soon as the kernel has
// committed it, and failed when changes can no longer be received. Elements that rules
// add to sets, and elements that expire, are no transactions.
func (k *Kernel) Watch(changed func(Change), failed func(error)) (*Watcher, error) {
	own, err := k.conn.GetPortID()
	if err != nil {
		return nil, fmt.Errorf("asking for the port of a netlink socket: %w", err)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables: %w", err)
	}
	// Beyond rmem_max this takes CAP_NET_ADMIN in the initial user namespace. A smaller
	// buffer is enough to learn that something has changed, if not what.
	_ = conn.SetReadBuffer(watchBuffer)
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		conn.Close()
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	w := &Watcher{conn: conn, closing: make(chan struct{}), done: make(chan struct{})}
	go w.read(own, changed, failed)
	return w, nil
}

// Close ends the watch. Once it returns, changed and failed are not called any more.
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
			// The changes of a transaction come first, and then the process that made it.
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

// changedTable returns the name of the table that a message is about, if the table is of
// the family inet.
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

// From linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
const (
	genericHeader = 4                   // size of struct nfgenmsg
	tableNameAttr = unix.NFTA_SET_TABLE // chains, rules and objects have the same number
)

// process returns the process that made a transaction, as the kernel reports it.
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
