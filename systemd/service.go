package systemd

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/audit"
)

// Supervised reports whether systemd wants to hear how the daemon is, as it does of
// a service.
func Supervised() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Service tells systemd how the daemon is (sd_notify(3)). That nobody hears it is
// no error.
type Service struct {
	status func() string
	stir   chan struct{} // the status may have changed

	mu       sync.Mutex
	told     string // the status that systemd knows
	stopping bool   // and nothing else is told any more
}

// NewService returns a Service that describes the daemon, in a line, by what
// status returns.
func NewService(status func() string) *Service {
	return &Service{status: status, stir: make(chan struct{}, 1)}
}

// Ready tells that the daemon does what it is for, from the start or again after
// a reload.
func (s *Service) Ready() { s.notify(daemon.SdNotifyReady) }

// Reloading tells that rule files are being read, which Ready ends.
func (s *Service) Reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	s.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
}

// Stopping tells that the daemon is on its way out.
func (s *Service) Stopping() {
	s.notify(daemon.SdNotifyStopping)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
}

// notify tells systemd of a change, and of the status, if that has changed.
func (s *Service) notify(change string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	if status := s.status(); status != s.told {
		s.told = status
		if change != "" {
			change += "\n"
		}
		change += "STATUS=" + status
	}
	if change != "" {
		_, _ = daemon.SdNotify(false, change)
	}
}

// Record makes the Service a sink of events: those that change the status.
func (s *Service) Record(e audit.Event) {
	if e.Kind.Row().Recounts {
		s.Changed()
	}
}

// Changed has TellStatus look whether the status has changed.
func (s *Service) Changed() {
	select {
	case s.stir <- struct{}{}:
	default:
	}
}

// statusInterval is how often the status is told at most.
const statusInterval = 250 * time.Millisecond

// TellStatus tells the status whenever it changes, until ctx ends.
func (s *Service) TellStatus(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.stir:
		}
		s.notify("")
		select {
		case <-ctx.Done():
			return
		case <-time.After(statusInterval):
		}
	}
}

// Watch feeds systemd's watchdog, if there is one, until ctx ends, and only as long
// as alive returns no error. What that error is, hang is told, so that it can be
// read why systemd kills the daemon.
func (s *Service) Watch(ctx context.Context, alive func() error, hang func(error)) {
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil || patience == 0 {
		return
	}
	ticker := time.NewTicker(patience / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := alive(); err != nil {
			hang(err)
			continue
		}
		_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
	}
}
