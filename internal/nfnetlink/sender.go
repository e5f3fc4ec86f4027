package nfnetlink

import (
	"encoding/binary"
	"os"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sender sends requests that want no answer, from any goroutine.
type Sender struct {
	raw syscall.RawConn

	mu    sync.Mutex
	buf   []byte
	write func(fd uintptr) bool // made once, as it would be allocated each time
	err   error                 // why it did not write
}

// NewSender makes a Sender on a socket.
func NewSender(conn *netlink.Conn) (*Sender, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Sender{raw: raw}
	s.write = func(fd uintptr) bool {
		_, s.err = unix.Write(int(fd), s.buf) // to the kernel, as the socket is not connected
		return s.err != unix.EAGAIN
	}
	return s, nil
}

// Send sends a request of a type of a netfilter subsystem (NFNL_SUBSYS_*) about a group
// or queue. What is wrong with it the kernel answers, if it is, and a [Reader] reads
// that.
func (s *Sender) Send(subsystem, kind uint8, number uint16, attributes []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := binary.NativeEndian.AppendUint32(s.buf[:0], uint32(headerLength+familyLength+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, uint16(subsystem)<<8|uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number and port: nobody asks for them
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, number)
	s.buf = append(b, attributes...)
	err := s.raw.Write(s.write)
	if err == nil && s.err != nil {
		err = os.NewSyscallError("write", s.err)
	}
	return err
}
