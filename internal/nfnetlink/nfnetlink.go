// Package nfnetlink reads and writes the messages of netfilter's log and queues, on
// sockets that go-nflog and go-nfqueue have opened and set up.
//
// Reading with these libraries costs two system calls and 17 to 64 allocations a packet.
// A flooded daemon cannot pay that: it would miss the knocks of honest clients. This
// package makes one system call for each datagram of the kernel, and allocates nothing.
package nfnetlink

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// The lengths of struct nlmsghdr (linux/netlink.h), of the struct nfgenmsg after it
// (linux/netfilter/nfnetlink.h), and of struct nlattr (linux/netlink.h).
const (
	headerLength    = unix.NLMSG_HDRLEN
	familyLength    = 4
	attributeHeader = unix.NLA_HDRLEN
)

// Message is one message of a datagram: its type, and the bytes after its header.
type Message struct {
	Kind uint16
	body []byte
}

// Attributes returns the attributes of a message, which come after the struct nfgenmsg.
func (m Message) Attributes() []byte { return m.body[min(familyLength, len(m.body)):] }

// Refusal returns the error in a message of type NLMSG_ERROR (struct nlmsgerr of
// linux/netlink.h), or nil if it reports success. The error is an [*AnswerError] if the message
// is not cut short.
func (m Message) Refusal() error {
	if len(m.body) < 4 {
		return errors.New("the kernel's answer is cut short")
	}
	if errno := -int32(binary.NativeEndian.Uint32(m.body)); errno != 0 {
		return &AnswerError{syscall.Errno(errno)}
	}
	return nil
}

// NextMessage returns the first message of a datagram and the rest. It reports false if there
// is no message, or if it is cut short.
func NextMessage(datagram []byte) (m Message, rest []byte, ok bool) {
	if len(datagram) < headerLength {
		return Message{}, nil, false
	}
	length := uint64(binary.NativeEndian.Uint32(datagram))
	if length < headerLength || length > uint64(len(datagram)) {
		return Message{}, nil, false
	}
	m = Message{binary.NativeEndian.Uint16(datagram[4:]), datagram[headerLength:length]}
	return m, datagram[min(aligned(length), uint64(len(datagram))):], true
}

// Attribute is one attribute of a message (struct nlattr).
type Attribute struct {
	Kind  uint16
	Value []byte
}

// NextAttribute returns the first attribute and the rest. It reports false if there is no
// attribute, or if it is cut short.
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

// AppendAttribute appends an attribute whose value is one or more 32-bit words in network
// byte order. Such a value needs no padding.
func AppendAttribute(b []byte, kind uint16, words ...uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attributeHeader+4*len(words)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// aligned returns the offset of the next message or attribute: they are padded to four
// bytes.
func aligned(length uint64) uint64 { return (length + 3) &^ 3 }
