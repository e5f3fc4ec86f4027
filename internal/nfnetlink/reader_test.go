package nfnetlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// deadline is how long a test waits for what must happen.
const deadline = 10 * time.Second

// heard records what it receives.
type heard struct {
	all    []string
	asked  func() string  // called for each message, if not nil
	enough func(int) bool // reports whether to end after so many errors; nil: never
	errors int
}

func (h *heard) Message(attributes []byte, last bool) {
	text := fmt.Sprintf("%q", attributes)
	if last {
		text += " last"
	}
	if h.asked != nil {
		text += h.asked()
	}
	h.all = append(h.all, text)
}

func (h *heard) ReadError(err error) bool {
	h.all = append(h.all, err.Error())
	h.errors++
	return h.enough == nil || !h.enough(h.errors)
}

func (h *heard) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, h.all); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	h.all = nil
}

func TestEachMessageOfADatagramIsHandedOn(t *testing.T) {
	const eperm, enoent = "the kernel answers: operation not permitted", "the kernel answers: no such file or directory"
	for _, tt := range []struct {
		name     string
		datagram []byte
		want     []string
	}{
		{"nothing", nil, nil},
		{"one message", withPacket("one."), []string{`"one." last`}},
		{"one that is padded", withPacket("three"), []string{`"three" last`}},
		{"several, and that this is all", slices.Concat(withPacket("one."), withPacket("two"), withPacket("three"), done()),
			[]string{`"one."`, `"two"`, `"three" last`}},
		{"two, and nothing said", slices.Concat(withPacket("one."), withPacket("two.")), []string{`"one."`, `"two." last`}},
		{"without attributes", withPacket(""), []string{`"" last`}},
		{"without a family", slices.Concat(of(packed, []byte("abc")), withPacket("one.")), []string{`"one." last`}},
		{"only that this is all", done(), nil},
		{"something to be skipped", slices.Concat(of(unix.NLMSG_NOOP, []byte("what a long message this is")), withPacket("one.")), []string{`"one." last`}},
		{"that all went well", answer(0), nil},
		{"that something went wrong", answer(int32(unix.ENOENT)), []string{enoent}},
		{"an answer between messages", slices.Concat(withPacket("one."), answer(int32(unix.EPERM)), withPacket("two.")),
			[]string{`"one."`, eperm, `"two." last`}},
		{"an answer cut short", of(unix.NLMSG_ERROR, []byte("abc")), []string{"the kernel's answer is cut short"}},
		{"the second cut short", slices.Concat(withPacket("one."), withPacket("two.")[:headerLength+familyLength+3]), []string{`"one."`}},
		{"one cut short at first", slices.Concat(withPacket("one.")[:headerLength+familyLength+3]), nil},
		{"a length of 0", slices.Concat(withPacket("one."), saying(0, packed, []byte("endless")), withPacket("two.")), []string{`"one."`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &heard{}
			r := &Reader{handler: h}
			if !r.handle(tt.datagram) {
				t.Error("it has had enough")
			}
			h.expect(t, "it was handed", tt.want...)
			if r.more.Load() {
				t.Error("afterwards, messages are left")
			}
		})
	}
}

func TestAnErrorIsTheKernelsOwn(t *testing.T) {
	refusal := func(datagram []byte) error {
		m, _, ok := NextMessage(datagram)
		if !ok {
			t.Fatal("the answer is no message")
		}
		return m.Refusal()
	}
	if err := refusal(answer(int32(unix.ENOENT))); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	if err := refusal(answer(0)); err != nil {
		t.Error(err)
	}
}

// After an error that ends the reading, the handler receives nothing more.
func TestWhoHasHadEnoughIsHandedNothingMore(t *testing.T) {
	h := &heard{enough: func(n int) bool { return n == 2 }}
	r := &Reader{handler: h}
	failed := answer(int32(unix.EPERM))
	if r.handle(slices.Concat(failed, withPacket("one."), failed, withPacket("two."), failed)) {
		t.Error("it goes on")
	}
	h.expect(t, "it was handed", "the kernel answers: operation not permitted", `"one."`, "the kernel answers: operation not permitted")
}

// routes connects to rtnetlink, which needs no privilege.
func routes(t testing.TB) *netlink.Conn {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func readerOf(t testing.TB, conn *netlink.Conn, h Handler) *Reader {
	t.Helper()
	r, err := newReader(conn, h)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask makes the kernel answer that there is no such interface. The answer has arrived
// when ask returns, if there is room for it.
func ask(t testing.TB, conn *netlink.Conn) {
	t.Helper()
	info := make([]byte, unix.SizeofIfInfomsg)
	info[4] = 0xff // the interface's number
	info[7] = 0x7f
	_, err := conn.Send(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: info})
	if err != nil {
		t.Fatal(err)
	}
}

const noDevice = "the kernel answers: no such device"

// library reads as go-nflog and go-nfqueue do, until it cannot, and then makes the reader
// read in its place. When ctx ends it interrupts the reading. It returns channels that
// are closed when library was interrupted itself, and when nobody reads any more.
func library(ctx context.Context, conn *netlink.Conn, r *Reader) (interrupted, ended <-chan struct{}) {
	stopped, done := make(chan struct{}), make(chan struct{})
	instead := r.instead(ctx)
	go func() {
		defer close(done)
		_, err := conn.Receive()
		close(stopped)
		for err == nil || instead(err) == 0 {
			_, err = conn.Receive()
		}
	}()
	go func() {
		<-ctx.Done()
		conn.SetReadDeadline(time.Now().Add(-time.Second))
	}()
	return stopped, done
}

func waitFor(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(deadline):
		t.Fatalf("after %s it is still not so: %s", deadline, what)
	}
}

// telling reports that it was called.
type telling struct{ messages, errors chan string }

func newTelling() telling { return telling{make(chan string, 1000), make(chan string, 1000)} }

func (h telling) Message(attributes []byte, _ bool) { h.messages <- string(attributes) }
func (h telling) ReadError(err error) bool {
	h.errors <- err.Error()
	return !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, os.ErrClosed)
}

func (h telling) expectError(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-h.errors:
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	case <-time.After(deadline):
		t.Errorf("after %s nobody has told of %q", deadline, want)
	}
}

func TestAReaderTakesOverFromWhoReads(t *testing.T) {
	for round := range 50 { // because the library's reading may have come more or less far
		conn, h := routes(t), newTelling()
		r := readerOf(t, conn, h)
		ctx, end := context.WithCancel(context.Background())
		interrupted, ended := library(ctx, conn, r)
		if round%2 == 0 {
			time.Sleep(time.Millisecond) // so that mostly the library waits already
		}
		if err := r.takeOver(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the library is interrupted", interrupted)
		for range 3 {
			ask(t, conn)
			h.expectError(t, noDevice)
		}
		select {
		case <-ended:
			t.Fatal("it has ended by itself")
		default:
		}
		end()
		waitFor(t, "it ends with its context", ended)
	}
}

// The caller that ends the reading closes the socket at once, perhaps before the reader
// knows that it is to end. That is no failure, and none is reported.
func TestAReaderThatIsEndedDoesNotFail(t *testing.T) {
	for range 200 {
		conn, h := routes(t), newTelling()
		r := readerOf(t, conn, h)
		ctx, end := context.WithCancel(context.Background())
		interrupted, ended := library(ctx, conn, r)
		if err := r.takeOver(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the library is interrupted", interrupted)
		ask(t, conn)
		h.expectError(t, noDevice)
		end()
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it ends", ended)
		if len(h.errors) > 0 {
			t.Fatalf("it is told: %s", <-h.errors)
		}
	}
}

func TestAReaderWhoseContextHasEndedReadsNothing(t *testing.T) {
	conn, h := routes(t), newTelling()
	ask(t, conn)
	ctx, end := context.WithCancel(context.Background())
	end()
	readerOf(t, conn, h).instead(ctx)(os.ErrDeadlineExceeded)
	if len(h.errors)+len(h.messages) != 0 {
		t.Error("it has read something")
	}
}

// The socket's error says that the kernel had no room for messages. Those before are
// still read.
func TestAnOverflowIsToldOfAndReadingGoesOn(t *testing.T) {
	conn, h := routes(t), newTelling()
	if err := conn.SetReadBuffer(1); err != nil { // the kernel takes its minimum
		t.Fatal(err)
	}
	for range 100 {
		ask(t, conn)
	}
	r := readerOf(t, conn, h)
	if r.Drained() {
		t.Error("it is drained, and nobody has read")
	}
	if p := r.Progress(); p.Idle || p.Done != 0 {
		t.Errorf("before it reads: %+v", p)
	}
	ctx, end := context.WithCancel(context.Background())
	go func() {
		<-ctx.Done()
		conn.SetReadDeadline(time.Now().Add(-time.Second))
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.instead(ctx)(nil)
	}()
	h.expectError(t, "read: no buffer space available")
	h.expectError(t, noDevice)
	for until := time.Now().Add(deadline); !r.Progress().Idle && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if p := r.Progress(); !p.Idle || p.Done == 0 || !r.Drained() {
		t.Errorf("when all is read: %+v, drained %t", p, r.Drained())
	}
	for len(h.errors) > 0 {
		h.expectError(t, noDevice)
	}
	ask(t, conn)
	h.expectError(t, noDevice)
	end()
	waitFor(t, "it ends", ended)
}

// A handler that asks during a message learns whether others of its datagram are left,
// which the socket does not know.
func TestASocketIsNotDrainedWhileMessagesOfItsDatagramAreLeft(t *testing.T) {
	h := &heard{}
	r := readerOf(t, routes(t), h)
	h.asked = func() string { return fmt.Sprintf(", drained %t", r.Drained()) }
	if !r.Drained() {
		t.Error("at first it is not drained")
	}
	r.handle(slices.Concat(withPacket("one."), withPacket("two."), withPacket("3"), done()))
	h.expect(t, "it was told", `"one.", drained false`, `"two.", drained false`, `"3" last, drained true`)
	if !r.Drained() {
		t.Error("in the end it is not drained")
	}
	// A rest that is no message has no last message.
	r.handle(slices.Concat(withPacket("one."), make([]byte, 100)))
	if h.all = nil; !r.Drained() {
		t.Error("after garbage it is not drained")
	}
	ask(t, r.conn)
	r.handle(withPacket("four"))
	h.expect(t, "while another datagram waits", `"four" last, drained false`)
}

// silent ignores everything.
type silent struct{ messages int }

func (s *silent) Message([]byte, bool) { s.messages++ }
func (s *silent) ReadError(error) bool { return true }

func TestHandingMessagesOnAllocatesNothing(t *testing.T) {
	h := &silent{}
	r := &Reader{handler: h}
	datagram := slices.Concat(withPacket("one."), withPacket("two"), answer(0), done())
	if n := testing.AllocsPerRun(1000, func() { r.handle(datagram) }); n != 0 {
		t.Errorf("%v allocations a datagram", n)
	}
	if h.messages != 2*1001 {
		t.Errorf("%d messages", h.messages)
	}
}

// within fails the test if it receives bytes from outside the datagram.
type within struct {
	t          *testing.T
	begin, end uintptr
	messages   int
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func (w *within) check(what string, b []byte) {
	if at := addressOf(b); len(b) > 0 && (at < w.begin || at+uintptr(len(b)) > w.end) {
		w.t.Errorf("%s of %d bytes are not within the datagram", what, len(b))
	}
}

func (w *within) Message(attributes []byte, _ bool) {
	w.messages++
	w.check("attributes", attributes)
	length := 0
	for a, rest, ok := NextAttribute(attributes); ok; a, rest, ok = NextAttribute(rest) {
		length += attributeHeader + len(a.Value)
		w.check("a value", a.Value)
		w.check("the rest", rest)
	}
	if length > len(attributes) {
		w.t.Errorf("%d bytes of attributes in %d", length, len(attributes))
	}
}

func (w *within) ReadError(err error) bool {
	if err == nil {
		w.t.Error("an error that is none")
	}
	w.messages++
	return true
}

func FuzzHandle(f *testing.F) {
	f.Add(slices.Concat(withPacket(string(slices.Concat(attribute(9, 1, "first"), attribute(8, 2, "2nd.")))), withPacket("two"), done()))
	f.Add(slices.Concat(answer(0), answer(1), of(unix.NLMSG_ERROR, nil)))
	f.Add(saying(0, packed, nil))
	f.Add(saying(1<<32-1, packed, nil))
	f.Add(slices.Concat(withPacket(string(attribute(0, 1, "endless"))), saying(17, packed, []byte("abcd"))))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		// As in the reader's buffer, where more bytes follow.
		buffer := append(slices.Clone(datagram), make([]byte, 256)...)
		datagram = buffer[:len(datagram)]
		w := &within{t: t, begin: addressOf(buffer), end: addressOf(buffer) + uintptr(len(datagram))}
		r := &Reader{handler: w}
		if !r.handle(datagram) || r.more.Load() {
			t.Error("it has not come to an end")
		}
		if w.messages > len(datagram)/headerLength {
			t.Errorf("%d messages in %d bytes", w.messages, len(datagram))
		}
	})
}

// What waits is handled by the caller, in its order, and none is waited for.
func TestACallerReadsWhatWaits(t *testing.T) {
	conn, h := routes(t), &heard{}
	r := readerOf(t, conn, h)
	r.ReadNow()
	h.expect(t, "nothing has come")
	for range readAtOnce + 1 {
		ask(t, conn)
	}
	r.ReadNow()
	h.expect(t, "all but one", slices.Repeat([]string{noDevice}, readAtOnce)...)
	if p := r.Progress(); p.Idle || p.Done != readAtOnce {
		t.Errorf("one waits: %+v", p)
	}
	r.ReadNow()
	h.expect(t, "the last", noDevice)
	if p := r.Progress(); !p.Idle || p.Done != readAtOnce+1 {
		t.Errorf("all are read: %+v", p)
	}
	conn.Close()
	r.ReadNow()
	h.expect(t, "the socket is closed")
}

// Whoever reads, each message is handled once, and none while another one is. Closing the
// socket waits for nobody for ever.
func TestCallersReadBesideTheReader(t *testing.T) {
	const messages, callers = 2000, 2
	conn := routes(t)
	n, inside := 0, false
	h := &heard{enough: func(int) bool {
		if inside {
			t.Error("two messages are handled at once")
		}
		inside = true
		n++
		inside = false
		return false
	}}
	r := readerOf(t, conn, h)
	ctx, end := context.WithCancel(context.Background())
	interrupted, ended := library(ctx, conn, r)
	if err := r.takeOver(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the library is interrupted", interrupted)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					r.ReadNow()
				}
			}
		})
	}
	for range messages {
		ask(t, conn)
		for until := time.Now().Add(deadline); !r.Progress().Idle && time.Now().Before(until); {
			runtime.Gosched()
		}
	}
	end()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	waitFor(t, "the reading has ended", ended)
	close(stop)
	all.Wait()
	if n != messages {
		t.Errorf("%d messages were handled, want %d", n, messages)
	}
}

// After a caller was told of the end, nobody reads on.
func TestNobodyReadsOnAfterACallerHasEndedTheReading(t *testing.T) {
	conn, h := routes(t), &heard{enough: func(n int) bool { return n == 2 }}
	r := readerOf(t, conn, h)
	for range 4 {
		ask(t, conn)
	}
	r.ReadNow()
	h.expect(t, "until it had enough", noDevice, noDevice)
	r.instead(context.Background())(nil)
	r.ReadNow()
	h.expect(t, "afterwards")
}
