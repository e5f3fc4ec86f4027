//go:build linux

package command

import (
	"slices"
	"sync"
	"time"
)

// Runner runs jobs: of one key one after the other, and of all keys MaxRunning at
// once.
type Runner struct {
	ended     func(Result)
	reporting sync.Mutex    // while ended is called
	closing   chan struct{} // closed when commands are to end
	idle      chan struct{} // closed when all jobs have been reported, and no more come

	mu      sync.Mutex
	waiting []Job           // none of which can be started
	busy    map[string]bool // the keys of those that run
	closed  bool

	kill sync.Once // closes closing
}

// NewRunner returns a Runner that reports each job it has taken, once, when it has
// ended. ended is called from the runner's goroutines, one call at a time, and for
// the jobs of one key in their order; the next of a key is not started before. It
// may call Run, but not Close.
func NewRunner(ended func(Result)) *Runner {
	return &Runner{
		ended:   ended,
		closing: make(chan struct{}),
		idle:    make(chan struct{}),
		busy:    map[string]bool{},
	}
}

// Run takes a job, to be run as soon as it can be. It reports whether it has: not
// if the job had to wait and MaxWaiting others do, unless it is vital, and not once
// the runner is closed. It never blocks.
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

// startable reports whether a job has nothing to wait for.
func (r *Runner) startable(j Job) bool {
	return len(r.busy) < MaxRunning && !r.busy[j.Key]
}

// start starts what is startable, the oldest first.
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

// run runs a job, and starts what has waited for it.
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

// endIfIdle is called where the last job may have been reported.
func (r *Runner) endIfIdle() {
	if r.closed && len(r.busy) == 0 {
		close(r.idle)
	}
}

// Close takes no more jobs, and returns when all have been reported. Those that run
// or wait have so long to be run as ever; then those that run are killed, which
// takes KillDelay and WaitDelay at most, and those that still wait are not run.
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
