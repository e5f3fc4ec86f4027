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

// Supervised reports whether systemd expects messages about the daemon's state, as from a
// service.
func Supervised() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Service tells systemd the daemon's state (sd_notify(3)). It is no error if nobody
// listens.
type Service struct {
	status func() string
	stir   chan struct{} // the status may have changed

	mu       sync.Mutex
	told     string // the status that systemd has
	stopping bool   // nothing is sent any more
}

// NewService returns a Service. status returns the status of the daemon in one line.
func NewService(status func() string) *Service {
	return &Service{status: status, stir: make(chan struct{}, 1)}
}

// Ready tells systemd that the daemon works: after the start, or again after a reload.
func (s *Service) Ready() { s.notify(daemon.SdNotifyReady) }

// Reloading tells systemd that a reload has begun. Ready ends it.
func (s *Service) Reloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	s.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond)))
}

// Stopping tells systemd that the daemon is ending.
func (s *Service) Stopping() {
	s.notify(daemon.SdNotifyStopping)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
}

// notify tells systemd of a change, and of the status if it has changed.
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

// Record takes an event. If its kind can change the status, it calls Changed.
func (s *Service) Record(e audit.Event) {
	if e.Kind.Row().Recounts {
		s.Changed()
	}
}

// Changed makes TellStatus read the status.
func (s *Service) Changed() {
	select {
	case s.stir <- struct{}{}:
	default:
	}
}

// statusInterval is the shortest time between two messages about the status.
const statusInterval = 250 * time.Millisecond

// TellStatus tells systemd the status whenever it changes, until ctx ends.
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

// Watch notifies systemd's watchdog, if there is one, until ctx ends. It does not while
// alive returns an error. It then passes the error to hang, so that the log says why
// systemd kills the daemon.
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
