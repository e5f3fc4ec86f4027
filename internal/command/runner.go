//go:build linux

package command

import (
	"slices"
	"sync"
	"time"
)

// Runner runs jobs. Jobs with the same key run one after the other. MaxRunning jobs run
// at once.
type Runner struct {
	ended     func(Result)
	reporting sync.Mutex    // held while ended is called
	closing   chan struct{} // closed when commands must end
	idle      chan struct{} // closed when all jobs are reported and no more can come

	mu      sync.Mutex
	waiting []Job           // jobs that cannot start yet
	busy    map[string]bool // the keys of running jobs
	closed  bool

	kill sync.Once // closes closing
}

// NewRunner returns a Runner that calls ended once for each job that has ended. It calls
// ended from its goroutines, one call at a time, and for jobs with the same key in their
// order. The next job with a key does not start before. ended may call Run, but not
// Close.
func NewRunner(ended func(Result)) *Runner {
	return &Runner{
		ended:   ended,
		closing: make(chan struct{}),
		idle:    make(chan struct{}),
		busy:    map[string]bool{},
	}
}

// Run takes a job and runs it as soon as possible. It returns false if the runner is
// closed, or if the job must wait, MaxWaiting others wait, and it is not vital. It never
// blocks.
func (r *Runner) Run(j Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || !r.startable(j) && len(r.waiting) >= MaxWaiting && !j.Vital {
		return false
	}
	r.waiting = append(r.waiting, j)
	r.start()
	return true
}

// startable reports whether a job can start now.
func (r *Runner) startable(j Job) bool {
	return len(r.busy) < MaxRunning && !r.busy[j.Key]
}

// start starts the jobs that can start, the oldest first.
func (r *Runner) start() {
	for len(r.busy) < MaxRunning {
		i := slices.IndexFunc(r.waiting, r.startable)
		if i < 0 {
			return
		}
		j := r.waiting[i]
		r.waiting = slices.Delete(r.waiting, i, i+1)
		r.busy[j.Key] = true
		go r.run(j)
	}
}

// run runs a job, and then starts jobs that have waited for it.
func (r *Runner) run(j Job) {
	r.report(execute(j, r.closing))
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, j.Key)
	r.start()
	r.endIfIdle()
}

func (r *Runner) report(result Result) {
	r.reporting.Lock()
	defer r.reporting.Unlock()
	r.ended(result)
}

// endIfIdle ends the runner if it is closed and no job runs. The lock must be held.
func (r *Runner) endIfIdle() {
	if r.closed && len(r.busy) == 0 {
		close(r.idle)
	}
}

// Close takes no more jobs, and returns when all are reported. Jobs that run or wait have
// that much time. Then it kills those that run, which takes KillDelay and WaitDelay at
// most, and does not run those that wait.
func (r *Runner) Close(patience time.Duration) {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		r.endIfIdle()
	}
	r.mu.Unlock()
	select {
	case <-r.idle:
		return
	case <-time.After(patience):
	}
	r.kill.Do(func() { close(r.closing) })
	<-r.idle
}
