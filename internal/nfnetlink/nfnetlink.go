// Package nfnetlink reads and writes the messages of netfilter's log and queues on
// sockets that go-nflog and go-nfqueue have opened and set up.
//
// The libraries' own reading costs two system calls and 17 to 64 allocations a
// packet, more than a daemon can pay while it is flooded: who knocks then would not be
// heard. Here it is one system call for all that the kernel has put into a datagram,
// and nothing is allocated.
package nfnetlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The lengths of struct nlmsghdr of linux/netlink.h, of struct nfgenmsg of
// linux/netfilter/nfnetlink.h after it, and of struct nlattr.
const (
	headerLength    = unix.NLMSG_HDRLEN
	familyLength    = 4
	attributeHeader = unix.NLA_HDRLEN
)

// message is one of a datagram: its type, and what comes after its header.
type message struct {
	kind uint16
	body []byte
}

// next takes the first message off a datagram, and reports false if there is none or
// it is cut short.
func next(datagram []byte) (m message, rest []byte, ok bool) {
	if len(datagram) < headerLength {
		return message{}, nil, false
	}
	length := uint64(binary.NativeEndian.Uint32(datagram))
	if length < headerLength || length > uint64(len(datagram)) {
		return message{}, nil, false
	}
	m = message{binary.NativeEndian.Uint16(datagram[4:]), datagram[headerLength:length]}
	return m, datagram[min(aligned(length), uint64(len(datagram))):], true
}

// Attribute is one of those that a message consists of.
type Attribute struct {
	Kind  uint16
	Value []byte
}

// NextAttribute takes the first attribute off those of a message, and reports false if
// there is none or it is cut short.
func NextAttribute(attributes []byte) (a Attribute, rest []byte, ok bool) {
	if len(attributes) < attributeHeader {
		return Attribute{}, nil, false
	}
	length := uint64(binary.NativeEndian.Uint16(attributes))
	if length < attributeHeader || length > uint64(len(attributes)) {
		return Attribute{}, nil, false
	}
	a.Kind = binary.NativeEndian.Uint16(attributes[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	a.Value = attributes[attributeHeader:length]
	return a, attributes[min(aligned(length), uint64(len(attributes))):], true
}

// AppendAttribute adds an attribute whose value is one or two words long, as all are
// that are sent here: in network byte order, so that no padding is wanted.
func AppendAttribute(b []byte, kind uint16, words ...uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attributeHeader+4*len(words)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// aligned is where what follows begins: messages and attributes are padded to four
// bytes.
func aligned(length uint64) uint64 { return (length + 3) &^ 3 }
