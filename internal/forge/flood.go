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

// Stream describes a flood.
type Stream struct {
	To       netip.Addr
	Hardware net.HardwareAddr // of To's end of the cable
	Ports    []packet.Port    // of one protocol; each packet goes to a random one of them. TCP packets are SYNs
	From     netip.Addr       // the source of all packets. If it is the zero address:
	Among    netip.Prefix     // the sources are in here; To needs a route to them
	Sources  int              // this many sources send in turn; 0: the whole prefix
	Payload  int              // bytes in a datagram: random characters of base64
	Data     [][]byte         // or the datagrams to send in turn, all of one size, from few ports: conntrack has room for them
	Rate     int              // packets per second; 0: as many as possible
	Packets  int64            // limit; 0: none
	Time     time.Duration    // limit; 0: none
	Behind   func() bool      // called before each batch: if it returns true, To cannot keep up and the flood pauses
}

// Flood is a stream that is being sent, all of it by one thread.
type Flood struct {
	stream  Stream
	sent    atomic.Int64
	dropped atomic.Int64
	stop    atomic.Bool
	ended   chan struct{}

	// Valid when it has ended.
	err    error
	took   time.Duration
	rested time.Duration
	cpu    time.Duration
}

// StartFlood begins to send by a host's interface. It bypasses the host's network stack,
// so the sources need not be addresses of the host. The flood ends at a limit or by End.
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

// pace is how long the sender pauses if it is ahead of its rate, or if the receiver is
// behind.
const pace = 500 * time.Microsecond

// send sends the flood.
func (f *Flood) send(fd int, packets *packets) {
	runtime.LockOSThread() // so that the thread's CPU time is the flood's
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
			case e == unix.ENOBUFS: // the receiver is full; a real cable would lose the packet
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

// End stops the flood. It returns an error if the flood failed before.
func (f *Flood) End() error {
	f.stop.Store(true)
	return f.Wait()
}

// Wait waits until the flood reaches a limit.
func (f *Flood) Wait() error {
	<-f.ended
	return f.err
}

// Sent returns how many packets were sent.
func (f *Flood) Sent() int64 { return f.sent.Load() }

// Dropped returns how many packets the cable dropped because it was full.
func (f *Flood) Dropped() int64 { return f.dropped.Load() }

// Took returns how long the flood lasted. It is valid after the end.
func (f *Flood) Took() time.Duration { return f.took }

// Rested returns how long the flood paused because the receiver was behind.
func (f *Flood) Rested() time.Duration { return f.rested }

// CPU returns the CPU time of the sender, after the end. The other end of a veth pair
// receives on the same thread, so that is included.
func (f *Flood) CPU() time.Duration { return f.cpu }

// Rate returns how many packets per second were sent, after the end.
func (f *Flood) Rate() float64 { return float64(f.sent.Load()) / f.took.Seconds() }

const (
	slots = 1 << 16 // prepared packets; each round changes their sources
	batch = 256     // packets per system call

	fewPorts = 16 // source ports of prepared datagrams
)

// mmsghdr is struct mmsghdr of sys/socket.h.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// packets are packets with Ethernet headers, in the form that sendmmsg takes.
type packets struct {
	stream  Stream
	bytes   []byte
	size    int // bytes of a packet
	iovecs  []unix.Iovec
	headers []mmsghdr
	at      int    // the next slot
	turn    uint64 // number of packets sent
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
	for slot := range slots {
		var sourcePort uint16
		if len(s.Data) > 0 {
			payload, sourcePort = s.Data[slot%len(s.Data)], uint16(1024+slot%fewPorts)
		} else {
			sourcePort = uint16(1024 + random.IntN(64000))
			for i := range payload {
				payload[i] = alphabet[random.IntN(len(alphabet))]
			}
		}
		segment := Segment{
			From: from, To: s.To, SourcePort: sourcePort,
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

// scatter is odd, so the low n bits of its first 2^n multiples all differ. They give
// addresses without visible order.
const scatter = 0x9e3779b97f4a7c15

// change sets the next source of a packet, or the next source port if there is only one
// source.
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
		sums = sums[:1] // IPv6 headers have no checksum
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
	address := p.stream.Among.Addr().As16() // an IPv4 address is in the last four bytes
	for i := len(address) - 1; n > 0; i-- {
		address[i] |= byte(n)
		n >>= 8
	}
	replace(b, source, address[len(address)-length:], sums)
}

// replace changes words of a packet and corrects the checksums that cover them (RFC
// 1624).
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
