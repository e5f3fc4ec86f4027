package forge

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/netlab"
	"github.com/knockwall/knockwall/internal/packet"
)

// Stream says what a flood is made of.
type Stream struct {
	To       netip.Addr
	Hardware net.HardwareAddr // of To's end of the cable
	Ports    []packet.Port    // of one protocol; each packet goes to one of them, at random. TCP ones get SYNs
	From     netip.Addr       // the source of all packets. If it is the zero address, there are many:
	Among    netip.Prefix     // they are scattered here, where To has to have a way to
	Sources  int              // and so many that send in turn; 0: as many as there is room for
	Payload  int              // bytes in a datagram, random ones of base64's alphabet
	Rate     int              // packets a second; 0: as many as this machine makes
	Packets  int64            // that are sent at most; 0: without end
	Time     time.Duration    // that the flood lasts at most; 0: without end
	Behind   func() bool      // asked before each batch: whether To cannot read any more, so that the flood rests
}

// Flood is a stream that is being sent. All of it is sent by one thread.
type Flood struct {
	stream  Stream
	sent    atomic.Int64
	dropped atomic.Int64
	stop    atomic.Bool
	ended   chan struct{}

	// What is known when it has ended.
	err    error
	took   time.Duration
	rested time.Duration
	cpu    time.Duration
}

// StartFlood begins to send by a host's interface. The host's own stack has no
// part in that, so the sources need not be its addresses. The flood ends by one
// of its limits, or by End.
func StartFlood(h *netlab.Host, link string, s Stream) (*Flood, error) {
	f := &Flood{stream: s, ended: make(chan struct{})}
	fd := -1
	err := h.Do(func() error {
		device, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: device.Attrs().Index})
	})
	if err != nil {
		return nil, fmt.Errorf("opening a socket for a flood by %s: %w", link, err)
	}
	packets := newPackets(s)
	go func() {
		defer close(f.ended)
		defer unix.Close(fd)
		f.send(fd, packets)
	}()
	return f, nil
}

// pace is how long the sender rests if it is ahead of its rate, or the other end is
// behind.
const pace = 500 * time.Microsecond

// send is the flood itself.
func (f *Flood) send(fd int, packets *packets) {
	runtime.LockOSThread() // whose CPU time is the flood's
	defer runtime.UnlockOSThread()
	began := time.Now()
	defer func() {
		f.took = time.Since(began)
		var usage unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err == nil {
			f.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}()
	for !f.stop.Load() {
		n, lasted := int64(batch), time.Since(began)
		if f.stream.Time > 0 && lasted >= f.stream.Time {
			return
		}
		done := f.sent.Load() + f.dropped.Load()
		if f.stream.Packets > 0 {
			n = min(n, f.stream.Packets-done)
			if n <= 0 {
				return
			}
		}
		if f.stream.Rate > 0 {
			n = min(n, int64(lasted.Seconds()*float64(f.stream.Rate))-done)
			if n <= 0 {
				time.Sleep(pace)
				continue
			}
		}
		if f.stream.Behind != nil && f.stream.Behind() {
			at := time.Now()
			time.Sleep(pace)
			f.rested += time.Since(at)
			continue
		}
		headers := packets.next(int(n))
		for len(headers) > 0 {
			n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), uintptr(len(headers)), 0, 0, 0)
			switch {
			case e == unix.EINTR:
			case e == unix.ENOBUFS: // the other end is full: on a cable it would be lost
				f.dropped.Add(1)
				headers = headers[1:]
			case e != 0:
				f.err = fmt.Errorf("sending a flood: sendmmsg: %w", e)
				return
			default:
				f.sent.Add(int64(n))
				headers = headers[n:]
			}
		}
	}
}

// End stops the flood. The error says why it has ended before.
func (f *Flood) End() error {
	f.stop.Store(true)
	return f.Wait()
}

// Wait waits until the flood has ended by itself.
func (f *Flood) Wait() error {
	<-f.ended
	return f.err
}

// Sent is how many packets have been sent.
func (f *Flood) Sent() int64 { return f.sent.Load() }

// Dropped is how many the cable had no room for.
func (f *Flood) Dropped() int64 { return f.dropped.Load() }

// Took is how long the flood has lasted, once it has ended.
func (f *Flood) Took() time.Duration { return f.took }

// Rested is how much of that it has waited for an end that was behind.
func (f *Flood) Rested() time.Duration { return f.rested }

// CPU is what the sender has used, once it has ended. The other end of a veth
// receives on the same thread, so that is in it, too.
func (f *Flood) CPU() time.Duration { return f.cpu }

// Rate is how many packets a second were sent, once the flood has ended.
func (f *Flood) Rate() float64 { return float64(f.sent.Load()) / f.took.Seconds() }

const (
	slots = 1 << 16 // packets that are built; from round to round they get other sources
	batch = 256     // packets that one call sends
)

// mmsghdr is struct mmsghdr of sys/socket.h.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// packets are packets with their Ethernet headers, in the form in which one call
// sends many.
type packets struct {
	stream  Stream
	bytes   []byte
	size    int // of each
	iovecs  []unix.Iovec
	headers []mmsghdr
	at      int    // the next slot
	turn    uint64 // how many packets were sent
}

// linkHeader is the length of an Ethernet header.
const linkHeader = 14

func newPackets(s Stream) *packets {
	random := rand.New(rand.NewPCG(1, 2)) // every run has the same packets
	p := &packets{stream: s}
	etherType := []byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}
	if s.To.Is6() {
		etherType = []byte{unix.ETH_P_IPV6 >> 8, unix.ETH_P_IPV6 & 0xff}
	}
	from := s.From
	if !from.IsValid() {
		from = s.Among.Addr()
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	payload := make([]byte, s.Payload)
	for range slots {
		for i := range payload {
			payload[i] = alphabet[random.IntN(len(alphabet))]
		}
		segment := Segment{
			From: from, To: s.To, SourcePort: uint16(1024 + random.IntN(64000)),
			Port: s.Ports[random.IntN(len(s.Ports))], Sequence: random.Uint32(), Flags: packet.SYN, Payload: payload,
		}
		p.bytes = append(p.bytes, s.Hardware...)
		p.bytes = append(p.bytes, 2, 0, 0, 0, 0, 1)
		p.bytes = append(p.bytes, etherType...)
		p.bytes = append(p.bytes, segment.Bytes()...)
	}
	p.size = len(p.bytes) / slots
	p.iovecs = make([]unix.Iovec, slots)
	p.headers = make([]mmsghdr, slots)
	for i := range p.headers {
		p.iovecs[i].Base = &p.bytes[i*p.size]
		p.iovecs[i].SetLen(p.size)
		p.headers[i].header.Iov = &p.iovecs[i]
		p.headers[i].header.SetIovlen(1)
	}
	return p
}

// next returns up to n packets to send.
func (p *packets) next(n int) []mmsghdr {
	first := p.at
	n = min(n, slots-first)
	p.at = (first + n) % slots
	for i := first; i < first+n; i++ {
		p.change(p.bytes[i*p.size : (i+1)*p.size])
		p.turn++
	}
	return p.headers[first : first+n]
}

// scatter is odd, so that its multiples, cut off at any bit, are all different:
// addresses that are in no order.
const scatter = 0x9e3779b97f4a7c15

// change gives a packet the source whose turn it is, or another source port if
// there is but one source.
func (p *packets) change(b []byte) {
	v4 := p.stream.To.Is4()
	source, length, transport := linkHeader+8, 16, linkHeader+40
	if v4 {
		source, length, transport = linkHeader+12, 4, linkHeader+20
	}
	sums := []int{transport + checksumOffset(p.stream.Ports[0].Protocol), linkHeader + 10}
	if p.stream.From.IsValid() {
		port := uint16(1024 + p.turn*scatter%64000)
		replace(b, transport, []byte{byte(port >> 8), byte(port)}, sums[:1])
		return
	}
	if !v4 {
		sums = sums[:1] // IPv6 headers have none
	}
	n := p.turn
	if p.stream.Sources > 0 {
		n %= uint64(p.stream.Sources)
	}
	host := p.stream.Among.Addr().BitLen() - p.stream.Among.Bits()
	n *= scatter
	if host < 64 {
		n &= 1<<host - 1
	}
	address := p.stream.Among.Addr().As16() // an IPv4 address is at its end
	for i := len(address) - 1; n > 0; i-- {
		address[i] |= byte(n)
		n >>= 8
	}
	replace(b, source, address[len(address)-length:], sums)
}

// replace puts other words into a packet, and corrects the checksums that cover
// them, as RFC 1624 says.
func replace(b []byte, at int, words []byte, sums []int) {
	for i := 0; i < len(words); i += 2 {
		change := uint32(^(uint16(b[at+i])<<8 | uint16(b[at+i+1]))) + uint32(words[i])<<8 + uint32(words[i+1])
		for _, s := range sums {
			sum := uint32(^(uint16(b[s])<<8 | uint16(b[s+1]))) + change
			for sum > 0xffff {
				sum = sum>>16 + sum&0xffff
			}
			b[s], b[s+1] = byte(^sum>>8), byte(^sum)
		}
	}
	copy(b[at:], words)
}
