package wall_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/knockwall/knockwall/ruleset"
)

// Knocks, connections, reloads and requests run concurrently. The model has for each
// client the times until which its window may be open, and must be. A reload loses no
// knock and no packet.
func TestUnderStressOnlySourcesWithAWindowAreAdmittedAndAllOfThem(t *testing.T) {
	const (
		span    = 2 * time.Second
		tick    = 10 * time.Millisecond // all happens at one, so that much happens at once
		length  = 15 * tick             // of a window
		hold    = 5 * tick
		clients = 24
	)
	ssh, web := sshDoor(), door("web", 443, 7000, 8001) // whose first knock is the same
	ssh.Window, web.Window = length, length
	configs := []*ruleset.Config{config(ssh, web), config(web, ssh), moved(config(ssh, web)), moved(config(web, ssh)), config(web, ssh)}
	for _, c := range configs {
		c.Wall.Hold = hold
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	guarded(t, configs[0], func(h *host) {
		end := time.Now().Add(span)
		// Other clients knock while a window is being opened. This must not sleep: the
		// goroutines that wait for it wait for a lock.
		h.intercepted("OpenWindows", func() {
			for range 100 {
				runtime.Gosched()
			}
		})
		var in, out, certainly, reloads atomic.Int64
		var all sync.WaitGroup

		for i := range clients {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			c := h.client(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}))
			honest := i%4 < 3
			port, sequence := uint16(22), []uint16{7000, 8000, 9000}
			if i%2 == 1 {
				port, sequence = 443, []uint16{7000, 8001}
			}
			last := len(sequence) - 1
			all.Go(func() {
				var may, must time.Time // until when the window may and must be open
				for time.Now().Before(end) {
					time.Sleep(time.Duration(rng.IntN(6)) * tick)
					sent := time.Now()
					action := rng.IntN(4)
					if !honest {
						action = max(action, 2)
					}
					var j *journey
					switch action {
					case 0:
						c.knock(sequence...)
						j = c.dial(port)
					case 1: // the SYN overtakes the last knock
						c.knock(sequence[:last]...)
						j = c.dial(port)
						c.knock(sequence[last])
					case 2: // the last knock is missing
						c.knock(sequence[:last]...)
						j = c.dial(port)
					case 3:
						j = c.dial(port)
					}
					shut := !sent.Before(may)
					if action < 2 {
						may = sent.Add(length)
					}
					<-j.done
					welcome := sent.Before(must) || action < 2
					switch {
					case j.fate == accepted && !j.at.Before(may):
						h.t.Errorf("%s came in, and its window was over %s before", c.addr, j.at.Sub(may))
					case j.fate == refused && welcome:
						h.t.Errorf("%s was refused, and its window was open", c.addr)
					case j.fate == refused && j.at.Sub(sent) < hold:
						h.t.Errorf("%s was refused after %s", c.addr, j.at.Sub(sent))
					case j.fate == dropped:
						h.t.Errorf("a packet of %s was lost", c.addr)
					}
					if action < 2 && shut {
						must = may // or else it may be the former window that has let it in
					}
					if j.fate == accepted {
						in.Add(1)
					} else {
						out.Add(1)
					}
					if welcome {
						certainly.Add(1)
					}
				}
			})
		}
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, clients))
			for i := 1; time.Now().Before(end); i++ {
				time.Sleep(time.Duration(rng.IntN(20)) * tick)
				if err := h.raise(configs[i%len(configs)]); err != nil {
					h.t.Errorf("Apply: %v", err)
				}
				reloads.Add(1)
			}
		})
		all.Go(func() {
			for time.Now().Before(end) {
				time.Sleep(tick)
				s := h.status()
				if _, err := json.Marshal(s); err != nil {
					h.t.Error(err)
				}
				for _, win := range s.Windows {
					if win.LeftSeconds < 0 || win.LeftSeconds > length.Seconds() || win.Source.Addr().As4()[3]%4 == (10+3)%4 {
						h.t.Errorf("status: %+v", win)
					}
				}
			}
		})
		all.Wait()
		together := 0
		for _, call := range h.changes() {
			if strings.Contains(call, ", ") {
				together++
			}
		}
		if together < 10 {
			h.t.Errorf("several windows were opened together %d times, which tells nothing", together)
		}
		if in.Load() < 50 || out.Load() < 50 || certainly.Load() < 50 || reloads.Load() < 10 {
			h.t.Errorf("too little happened: %d in, %d of them certainly, %d out, %d reloads",
				in.Load(), certainly.Load(), out.Load(), reloads.Load())
		}
	})
}
