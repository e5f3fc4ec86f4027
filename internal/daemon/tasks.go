//go:build linux

package daemon

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// task is a part of the daemon that runs as long as the daemon.
type task struct {
	name string
	// run works until ctx ends, and then returns nil. It calls ready once it can work.
	// ready returns when all tasks are ready.
	run func(ctx context.Context, ready func()) error
}

// optional returns a task that is ready at once, and whose end does not end the others.
func optional(name string, run func(ctx context.Context)) task {
	return task{name, func(ctx context.Context, ready func()) error {
		ready()
		run(ctx)
		<-ctx.Done()
		return nil
	}}
}

// tasks are tasks that run side by side and end together.
type tasks struct {
	first    []task // end first
	last     task   // ends when all others have ended
	ready    func() // called when all are ready
	stopping func() // called between the end of the first and the end of the last
}

// run runs the tasks until ctx ends or a task ends, which ends the others. It returns the
// first error, which names its task.
func (t *tasks) run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	lastCtx, endLast := context.WithCancel(context.WithoutCancel(ctx))
	defer endLast()

	var group errgroup.Group
	b := newBarrier(len(t.first)+1, t.ready)
	start := func(ctx context.Context, k task, ended func()) {
		group.Go(func() error {
			defer ended()
			if err := k.run(ctx, sync.OnceFunc(func() { b.wait(ctx) })); err != nil {
				return &taskError{k.name, err}
			}
			return nil
		})
	}
	var working sync.WaitGroup
	working.Add(len(t.first))
	for _, k := range t.first {
		start(ctx, k, func() { end(); working.Done() })
	}
	start(lastCtx, t.last, end)
	group.Go(func() error {
		working.Wait()
		t.stopping()
		endLast()
		return nil
	})
	return group.Wait()
}

// taskError is the error of a task.
type taskError struct {
	task string
	err  error
}

func (e *taskError) Error() string { return fmt.Sprintf("%s: %v", e.task, e.err) }
func (e *taskError) Unwrap() error { return e.err }

// barrier lets tasks go on when all of them wait at it.
type barrier struct {
	missing atomic.Int64  // tasks that do not wait yet
	full    func()        // called before the tasks go on
	open    chan struct{} // closed when they go on
}

func newBarrier(tasks int, full func()) *barrier {
	b := &barrier{full: full, open: make(chan struct{})}
	b.missing.Store(int64(tasks))
	return b
}

// wait returns when all tasks wait, or when ctx ends.
func (b *barrier) wait(ctx context.Context) {
	if b.missing.Add(-1) == 0 {
		b.full()
		close(b.open)
	}
	select {
	case <-b.open:
	case <-ctx.Done():
	}
}

// until runs work, which may wait for a disk that hangs. It returns when work is done, or
// when ctx ends, and reports whether work is done.
func until(ctx context.Context, work func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
