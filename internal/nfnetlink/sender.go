package nfnetlink

import (
	"encoding/binary"
	"os"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sender sends requests that need no answer. It is safe for concurrent use.
type Sender struct {
	raw syscall.RawConn

	mu    sync.Mutex
	buf   []byte
	write func(fd uintptr) bool // made once, because a closure for each call would be allocated
	err   error                 // why the last write failed
}

// NewSender returns a Sender on a socket.
func NewSender(conn *netlink.Conn) (*Sender, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Sender{raw: raw}
	s.write = func(fd uintptr) bool {
		_, s.err = unix.Write(int(fd), s.buf) // an unconnected socket writes to the kernel
		return s.err != unix.EAGAIN
	}
	return s, nil
}

// Send sends a request about a group or queue to a netfilter subsystem (NFNL_SUBSYS_*).
// Kind is the type of the message. The error says that it could not be sent. If the
// kernel refuses the request, its answer arrives at the [Reader] of the socket.
func (s *Sender) Send(subsystem, kind uint8, number uint16, attributes []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := binary.NativeEndian.AppendUint32(s.buf[:0], uint32(headerLength+familyLength+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, uint16(subsystem)<<8|uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number and port ID, which nobody uses
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, number)
	s.buf = append(b, attributes...)
	err := s.raw.Write(s.write)
	if err == nil && s.err != nil {
		err = os.NewSyscallError("write", s.err)
	}
	return err
}
