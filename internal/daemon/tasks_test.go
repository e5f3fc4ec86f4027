//go:build linux

package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// log records what happens, in order.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

// expect checks what happened since the last call.
func (l *log) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.lines, want) {
		t.Errorf("%s: %q, want %q", when, l.lines, want)
	}
	l.lines = nil
}

// tasks returns tasks that record when all are ready and when they stop.
func (l *log) tasks(last task, first ...task) *tasks {
	return &tasks{
		first: first, last: last,
		ready:    func() { l.add("all are ready") },
		stopping: func() { l.add("stopping") },
	}
}

// steady returns a task that is ready once starts is closed, and that takes some time to
// end.
func (l *log) steady(name string, starts <-chan struct{}, takes time.Duration) task {
	return task{name, func(ctx context.Context, ready func()) error {
		<-starts
		l.add(name + " starts")
		ready()
		ready() // a second call does nothing
		l.add(name + " works")
		<-ctx.Done()
		time.Sleep(takes)
		l.add(name + " ends")
		return nil
	}}
}

// now is a closed channel: the start of tasks that are ready at once.
var now = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// launch runs tasks, and returns the channel with their error.
func launch(ctx context.Context, k *tasks) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- k.run(ctx) }()
	return ended
}

// No task works before all are ready, and readiness is announced once.
func TestReadyWhenAllTasksAreReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		ctx, cancel := context.WithCancel(t.Context())
		a, b, c := make(chan struct{}), make(chan struct{}), make(chan struct{})
		ended := launch(ctx, l.tasks(l.steady("c", c, 0), l.steady("a", a, 0), l.steady("b", b, 0)))
		l.expect(t, "no task is ready")
		close(a)
		l.expect(t, "one is", "a starts")
		close(c)
		l.expect(t, "two are", "c starts")
		close(b)
		synctest.Wait()
		slices.Sort(l.lines[2:])
		l.expect(t, "all are", "b starts", "all are ready", "a works", "b works", "c works")
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("tasks that were told to end returned %v", err)
		}
	})
}

// A task that ends before it is ready keeps the others from becoming ready, and ends them.
func TestTaskThatFailsBeforeItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		broken := task{"broken", func(context.Context, func()) error { return errors.New("no memory") }}
		ended := launch(t.Context(), l.tasks(l.steady("last", now, 0), broken))
		if err := <-ended; err == nil || err.Error() != "broken: no memory" {
			t.Errorf("the error is %v", err)
		}
		if slices.Contains(l.lines, "all are ready") {
			t.Error("readiness was announced")
		}
	})
}

// However a task ends, it ends the others. Its error names it, and the errors of tasks
// that end because of it are not returned.
func TestTaskThatEndsEndsTheOthers(t *testing.T) {
	failure := errors.New("no memory")
	for _, test := range []struct {
		name string
		err  error
		want string
	}{{"with an error", failure, "wall: no memory"}, {"without one", nil, ""}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l log
				ends := make(chan struct{})
				wall := task{"wall", func(_ context.Context, ready func()) error {
					ready()
					<-ends
					return test.err
				}}
				sensitive := task{"sensitive", func(ctx context.Context, ready func()) error {
					ready()
					<-ctx.Done()
					time.Sleep(time.Second)
					if test.err != nil {
						return ctx.Err()
					}
					return nil
				}}
				ended := launch(t.Context(), l.tasks(l.steady("last", now, 0), wall, sensitive))
				l.expect(t, "at first", "last starts", "all are ready", "last works")
				close(ends)
				err := <-ended
				l.expect(t, "at the end", "stopping", "last ends")
				if got := text(err); got != test.want || !errors.Is(err, test.err) {
					t.Errorf("the error is %q, want %q", got, test.want)
				}
			})
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// The order of the shutdown: the tasks end side by side, then systemd is told, then the
// last task ends.
func TestOrderOfShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		ctx, cancel := context.WithCancel(t.Context())
		ended := launch(ctx, l.tasks(l.steady("control", now, time.Second),
			l.steady("wall", now, time.Minute), l.steady("watchdog", now, 0)))
		synctest.Wait()
		l.lines = nil
		cancel()
		l.expect(t, "at once", "watchdog ends")
		time.Sleep(time.Minute)
		l.expect(t, "when the wall has handed over", "wall ends", "stopping")
		time.Sleep(time.Second)
		l.expect(t, "when the last answer is given", "control ends")
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The daemon goes on when a task that it does not need has ended.
func TestOptionalTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l log
		ctx, cancel := context.WithCancel(t.Context())
		ended := launch(ctx, l.tasks(optional("control", func(context.Context) { l.add("control fails") }),
			optional("watchdog", func(context.Context) { l.add("no watchdog") })))
		synctest.Wait()
		slices.Sort(l.lines)
		l.expect(t, "at first", "all are ready", "control fails", "no watchdog")
		time.Sleep(time.Hour)
		l.expect(t, "later")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		l.expect(t, "at the end", "stopping")
	})
}

// Work that waits for a disk that hangs does not keep its task from ending.
func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if !until(t.Context(), func() { time.Sleep(time.Second) }) {
			t.Error("it did not wait for work that takes a second")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if until(ctx, func() { time.Sleep(time.Hour) }) || time.Since(began) != time.Minute {
			t.Errorf("it waited %s for work that takes an hour, for a minute at most", time.Since(began))
		}
		time.Sleep(time.Hour) // the work must end within the bubble
	})
}
