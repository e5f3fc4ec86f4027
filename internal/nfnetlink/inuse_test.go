package nfnetlink_test

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/nflog"
	"github.com/knockwall/knockwall/nfqueue"
)

// deaf is a handler that ignores everything.
type deaf struct{}

func (deaf) Logged([]byte, packet.Packet, []byte) {}
func (deaf) Lost(uint32)                          {}
func (deaf) Queued(uint32, packet.Packet)         {}
func (deaf) Unreadable(uint32)                    {}
func (deaf) Failed(error)                         {}

const number = 7100

var subsystems = []struct {
	name   string
	inUse  func() (bool, error)
	listen func() (io.Closer, error)
}{
	{"NFLOG", func() (bool, error) { return nflog.InUse(number) },
		func() (io.Closer, error) { return nflog.Listen(number, deaf{}) }},
	{"NFQUEUE", func() (bool, error) { return nfqueue.InUse(number) },
		func() (io.Closer, error) { return nfqueue.Listen(nfqueue.Config{Number: number, Length: 1}, deaf{}) }},
}

// onOwnThread runs f on a thread that ends after it, so that f may change the thread.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

func TestInUse(t *testing.T) {
	var cannot error
	onOwnThread(func() {
		if cannot = unix.Unshare(unix.CLONE_NEWNET); cannot != nil {
			return
		}
		for _, s := range subsystems {
			expect := func(want bool, when string) {
				t.Helper()
				if got, err := s.inUse(); err != nil || got != want {
					t.Errorf("%s: %s it is in use: %t, %v", s.name, when, got, err)
				}
			}
			expect(false, "when nobody has bound it")
			l, err := s.listen()
			if err != nil {
				t.Errorf("%s: %v", s.name, err)
				return
			}
			expect(true, "when a socket has bound it")
			if err := l.Close(); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
			expect(false, "when it is closed")
		}
	})
	if cannot != nil {
		t.Skipf("needs root: %v", cannot)
	}
}

// Without CAP_NET_ADMIN nobody can know what is in use, and nothing is said to be.
func TestInUseWithoutPrivilege(t *testing.T) {
	onOwnThread(func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			t.Errorf("capget: %v", err)
			return
		}
		sets[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &sets[0]); err != nil {
			t.Errorf("capset: %v", err)
			return
		}
		for _, s := range subsystems {
			used, err := s.inUse()
			if used || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
				t.Errorf("%s: in use: %t, %v", s.name, used, err)
			}
		}
	})
}
