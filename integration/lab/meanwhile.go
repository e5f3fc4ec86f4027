package lab

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Meanwhile calls try again and again until stop is called. If try returns an error, the
// test fails. stop returns how often try succeeded.
func (l *Lab) Meanwhile(try func() error) (stop func() int) {
	l.T.Helper()
	var all sync.WaitGroup
	var stopped atomic.Bool
	tries := 0
	all.Go(func() {
		for !stopped.Load() {
			if err := try(); err != nil {
				l.T.Errorf("at %s: %v", time.Now().Format("15:04:05.000"), err)
				return
			}
			tries++
		}
	})
	stop = func() int {
		stopped.Store(true)
		all.Wait()
		return tries
	}
	l.T.Cleanup(func() { stop() })
	return stop
}

// StrangersMeanwhile lets strangers try to connect to port 22, one after the other, until
// stop is called. If one succeeds, the test fails.
func (l *Lab) StrangersMeanwhile(server netip.Addr) (stop func() int) {
	l.T.Helper()
	strangers := 0
	return l.Meanwhile(func() error {
		if strangers++; l.AdmitsAtOnce(Source(1000+strangers, server), server, 22) {
			return fmt.Errorf("a stranger gets in to %s", server)
		}
		return nil
	})
}
