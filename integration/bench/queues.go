package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
)

// queueNumber is the NFQUEUE that the loops read.
const queueNumber = 1

// queue is a program that accepts every SYN from an NFQUEUE and does nothing else. It shows
// the least possible cost of knockwall's method in a language or library.
type queue struct {
	title   string
	command []string // the program, which writes a line when it listens
	*daemon
}

func (q *queue) name() string { return q.title }

func (q *queue) start(l *lab) (err error) {
	if q.daemon, err = launchReady(l, exec.Command(q.command[0], q.command[1:]...)); err != nil {
		return err
	}
	return l.server.Do(queueSYNs)
}

func (q *queue) stop() { q.kill() }

// queueSYNs installs a rule that queues the SYNs to the door.
func queueSYNs() error {
	kernel, err := nft.OpenKernel()
	if err != nil {
		return err
	}
	native := kernel.Features().NativeQueue
	if err := kernel.Close(); err != nil {
		return err
	}
	// struct xt_NFQ_info_v3 of linux/netfilter/xt_NFQUEUE.h, with the padding that
	// x_tables requires: the first queue and the number of queues.
	info := make(xt.Unknown, 8)
	binary.NativeEndian.PutUint16(info[0:], queueNumber)
	binary.NativeEndian.PutUint16(info[2:], 1)
	var enqueue expr.Any = &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}
	if native {
		enqueue = &expr.Queue{Num: queueNumber}
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "loop", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, door.Number)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{byte(packet.SYN | packet.ACK)}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(packet.SYN)}},
		enqueue,
	}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("installing a rule that queues SYNs: %w", err)
	}
	return nil
}

//go:embed queue.c
var queueSource string

// compileQueue compiles the loop in C.
func compileQueue(gcc, folder string) (binary string, err error) {
	source, binary := filepath.Join(folder, "queue.c"), filepath.Join(folder, "queue")
	if err := os.WriteFile(source, []byte(queueSource), 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command(gcc, "-O2", "-Wall", "-o", binary, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling queue.c: %w\n%s", err, out)
	}
	return binary, nil
}

// runLoop runs one of the loops in Go.
func runLoop(kind string) error {
	switch kind {
	case "go":
		return plainLoop()
	case "go-nfqueue":
		return libraryLoop()
	}
	return fmt.Errorf("there is no loop %q", kind)
}

// Constants of linux/netfilter/nfnetlink_queue.h.
const (
	messageVerdict, messageConfig  = 1, 2
	attributeVerdict               = 2 // NFQA_VERDICT_HDR
	attributeCommand, commandBind  = 1, 1
	attributeParameters, copyWhole = 2, 2 // NFQA_CFG_PARAMS; NFQNL_COPY_PACKET
)

// plainLoop does the same as queue.c: blocking system calls and no library.
func plainLoop() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	bind := []byte{commandBind, 0, 0, 0}
	copies := binary.BigEndian.AppendUint32(nil, packet.SnapLen)
	copies = append(copies, copyWhole)
	for _, attribute := range []struct {
		kind  uint16
		value []byte
	}{{attributeCommand, bind}, {attributeParameters, copies}} {
		if _, err := unix.Write(fd, queueMessage(messageConfig, unix.NLM_F_ACK, attribute.kind, attribute.value)); err != nil {
			return err
		}
		b := make([]byte, 4096)
		n, err := unix.Read(fd, b)
		if err != nil {
			return err
		}
		if n < 20 || binary.NativeEndian.Uint32(b[16:]) != 0 {
			return fmt.Errorf("the kernel rejects the queue's configuration: %x", b[:n])
		}
	}
	fmt.Println("ready")
	verdict := queueMessage(messageVerdict, 0, attributeVerdict, make([]byte, 8))
	binary.BigEndian.PutUint32(verdict[24:], 1) // NF_ACCEPT
	b := make([]byte, 65536)
	for {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return err
		}
		// The packet header is the first attribute of the message, and the ID its first field.
		if n < 28 {
			return fmt.Errorf("the kernel sent a message of only %d bytes", n)
		}
		copy(verdict[28:], b[24:28])
		if _, err := unix.Write(fd, verdict); err != nil {
			return err
		}
	}
}

// queueMessage returns a message to nfnetlink_queue with one attribute.
func queueMessage(kind, flags, attribute uint16, value []byte) []byte {
	b := make([]byte, 24, 24+len(value)+3)
	binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_QUEUE<<8|kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	binary.BigEndian.PutUint16(b[18:], queueNumber)
	binary.NativeEndian.PutUint16(b[20:], uint16(4+len(value)))
	binary.NativeEndian.PutUint16(b[22:], attribute)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// libraryLoop uses go-nfqueue in the way of its example.
func libraryLoop() error {
	loop, err := nfqueue.Open(&nfqueue.Config{
		NfQueue: queueNumber, MaxPacketLen: 0xFFFF, MaxQueueLen: 0xFF, Copymode: nfqueue.NfQnlCopyPacket,
	})
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := loop.SetOption(netlink.NoENOBUFS, true); err != nil {
		return err
	}
	failed := make(chan error, 1)
	err = loop.RegisterWithErrorFunc(context.Background(), func(a nfqueue.Attribute) int {
		if err := loop.SetVerdict(*a.PacketID, nfqueue.NfAccept); err != nil {
			failed <- err
			return 1
		}
		return 0
	}, func(err error) int {
		failed <- err
		return 1
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return <-failed
}
