//go:build linux

package command_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/command"
	"github.com/knockwall/knockwall/internal/eventually"
)

func TestJobsOfAKeyKeepTheirOrder(t *testing.T) {
	folder := t.TempDir()
	r, results := runner(t)
	const keys, each = 5, 12
	for i := range each {
		for key := range keys {
			// mkdir fails if two jobs with the same key run at once.
			j := script(`mkdir "$1" && echo "$2" && rmdir "$1"`, filepath.Join(folder, fmt.Sprint(key)), fmt.Sprint(i))
			j.Key = fmt.Sprint(key)
			if !r.Run(j) {
				t.Fatal("it is not taken")
			}
		}
	}
	due := map[string]int{}
	for range keys * each {
		got := next(t, results)
		expect(t, got, fmt.Sprint(due[got.Job.Key]))
		due[got.Job.Key]++
	}
}

func TestOtherKeysOvertake(t *testing.T) {
	r, results := runner(t)
	first, other := newGate(t), job("/bin/echo", "other")
	other.Key = "b"
	r.Run(first.job("a"))
	second := job("/bin/echo", "second")
	second.Key = "a"
	r.Run(second)
	open := first.reached()
	r.Run(other)
	expect(t, next(t, results), "other")
	open()
	expect(t, next(t, results), "")
	expect(t, next(t, results), "second")
}

// Never do more than MaxRunning jobs run, and never fewer while more could.
func TestSoManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const jobs = 3 * command.MaxRunning
	var here atomic.Int64 // jobs that have started and are not reported
	results := make(chan command.Result, jobs)
	r := command.NewRunner(func(got command.Result) {
		here.Add(-1)
		results <- got
	})
	defer r.Close(0)
	for i := range jobs {
		j := job(os.Args[0], path)
		j.Key = fmt.Sprint(i)
		j.Environment = append(j.Environment, roleVariable+"=visitor", "GORACE=atexit_sleep_ms=0")
		if !r.Run(j) {
			t.Fatal("it is not taken")
		}
	}
	visitors := make(chan net.Conn, jobs)
	go func() {
		for {
			visitor, err := listener.Accept()
			if err != nil {
				return
			}
			if n := here.Add(1); n > command.MaxRunning {
				t.Errorf("%d run at once", n)
			}
			visitors <- visitor
		}
	}()
	var staying []net.Conn
	for i := range jobs {
		for len(staying) < min(command.MaxRunning, jobs-i) {
			select {
			case visitor := <-visitors:
				staying = append(staying, visitor)
			case <-time.After(30 * time.Second):
				t.Fatalf("%d run, want %d", len(staying), min(command.MaxRunning, jobs-i))
			}
		}
		staying[0].Close()
		staying = staying[1:]
		expect(t, next(t, results), "")
	}
}

// crowd fills a runner: MaxRunning commands run and are blocked at a gate, and MaxWaiting
// wait.
func crowd(t *testing.T, r *command.Runner) {
	t.Helper()
	for i := range command.MaxRunning {
		g := newGate(t)
		if !r.Run(g.job(fmt.Sprint("running ", i))) {
			t.Fatalf("number %d is not run", i)
		}
		t.Cleanup(g.reached())
	}
	for i := range command.MaxWaiting {
		j := script("echo waited")
		j.Key = fmt.Sprint("waiting ", i%10)
		if !r.Run(j) {
			t.Fatalf("number %d has no place to wait", i)
		}
	}
}

func TestSoManyWait(t *testing.T) {
	r, results := runner(t)
	crowd(t, r)
	if r.Run(script("echo too many")) {
		t.Error("one more waits")
	}
	for range 3 {
		vital := script("echo vital")
		vital.Vital = true
		if !r.Run(vital) {
			t.Error("what is vital does not wait")
		}
	}
	if r.Run(script("echo too many")) {
		t.Error("one more waits")
	}
	r.Close(0)
	counts := map[string]int{}
	for len(results) > 0 {
		got := <-results
		if !errors.Is(got.Err, command.ErrClosed) || got.ExitCode != -1 || got.Output != "" {
			t.Errorf("%+v", got)
		}
		counts[strings.Join(got.Job.Arguments[2:], " ")]++
	}
	if counts["echo waited sh"] != command.MaxWaiting || counts["echo vital sh"] != 3 || len(counts) != 2+1 {
		t.Errorf("%v", counts)
	}
}

// A command that hangs blocks only its own key.
func TestWhatNeedNotWaitIsTaken(t *testing.T) {
	r, results := runner(t)
	g := newGate(t)
	r.Run(g.job("hangs"))
	open := g.reached()
	for range command.MaxWaiting {
		j := script("echo waited")
		j.Key = "hangs"
		if !r.Run(j) {
			t.Fatal("it has no place to wait")
		}
	}
	if r.Run(g.job("hangs")) {
		t.Error("one more waits")
	}
	other := script("echo other")
	other.Key = "other"
	if !r.Run(other) {
		t.Fatal("it is not taken")
	}
	expect(t, next(t, results), "other")
	open()
	expect(t, next(t, results), "")
	expect(t, next(t, results), "waited")
}

// While ended runs, no other job is reported; neither the end of a job nor a start
// disturbs it.
func TestOneIsReportedAtATime(t *testing.T) {
	const jobs = 40
	var r *command.Runner
	var reporting atomic.Bool
	reported, done := 0, make(chan struct{}) // nothing else protects the counter
	r = command.NewRunner(func(got command.Result) {
		if !reporting.CompareAndSwap(false, true) {
			t.Error("two are reported at once")
		}
		time.Sleep(time.Millisecond) // lets other jobs end meanwhile
		if reported++; reported <= jobs/2 {
			again := job("/bin/true")
			again.Key = got.Job.Key + " again"
			if !r.Run(again) {
				t.Error("it is not taken")
			}
		}
		if reported == jobs {
			close(done)
		}
		reporting.Store(false)
	})
	for i := range jobs / 2 {
		j := job("/bin/true")
		j.Key = fmt.Sprint(i)
		if !r.Run(j) {
			t.Error("it is not taken")
		}
	}
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("not all are reported")
	}
	r.Close(0)
}

func TestCloseRunsWhatWaits(t *testing.T) {
	r, results := runner(t)
	const jobs = 3 * command.MaxRunning
	for i := range jobs {
		j := script("echo " + fmt.Sprint(i))
		j.Key = fmt.Sprint(i % 3)
		r.Run(j)
	}
	r.Close(time.Minute)
	if len(results) != jobs {
		t.Fatalf("%d are reported, want %d", len(results), jobs)
	}
	for range jobs {
		got := <-results
		expect(t, got, got.Job.Arguments[2][len("echo "):])
	}
}

func TestCloseKillsWhatRuns(t *testing.T) {
	r, results := runner(t)
	pids := filepath.Join(t.TempDir(), "pids")
	g := newGate(t)
	running := stubborn(`| tee "$1"; cat "$2"`)
	running.Arguments = append(running.Arguments, pids, g.path)
	running.Key = "a"
	waiting := script("echo never")
	waiting.Key = "a"
	r.Run(running)
	r.Run(waiting)
	var pid string
	eventually.True(t, "it has begun", func() bool {
		content, err := os.ReadFile(pids)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		pid = string(content)
		return strings.HasSuffix(pid, "\n")
	})
	r.Close(10 * time.Millisecond)
	if len(results) != 2 {
		t.Fatalf("%d are reported, want 2", len(results))
	}
	got := <-results
	if !errors.Is(got.Err, command.ErrClosed) || got.ExitCode != -1 || got.Output != strings.TrimSpace(pid) {
		t.Errorf("%+v", got)
	}
	got = <-results
	if !errors.Is(got.Err, command.ErrClosed) || got.ExitCode != -1 || got.Took != 0 || got.Job.Arguments[2] != "echo never" {
		t.Errorf("%+v", got)
	}
	gone(t, number(t, pid))
}

func TestAfterCloseNothingIsRun(t *testing.T) {
	r, results := runner(t)
	r.Run(job("/bin/true"))
	expect(t, next(t, results), "")
	for range 3 {
		r.Close(time.Minute) // no job runs, so it returns at once
		vital := job("/bin/true")
		vital.Vital = true
		if r.Run(job("/bin/true")) || r.Run(vital) {
			t.Error("it is taken")
		}
	}
	if len(results) != 0 {
		t.Errorf("reported is %+v", <-results)
	}
}

// Each of several Close calls returns after all jobs were reported.
func TestSeveralClose(t *testing.T) {
	r, results := runner(t)
	crowd(t, r)
	closed := make(chan int)
	for _, patience := range []time.Duration{0, time.Minute, time.Millisecond} {
		go func() {
			r.Close(patience)
			closed <- len(results)
		}()
	}
	for range 3 {
		if n := <-closed; n != command.MaxRunning+command.MaxWaiting {
			t.Errorf("%d are reported", n)
		}
	}
}
