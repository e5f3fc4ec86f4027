//go:build linux

package command

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/printable"
)

// process is a running command, the leader of its own process group.
type process struct {
	cmd    *exec.Cmd
	output *output
	exited chan struct{} // closed when it has exited. It is reaped later, so that its id is not reused
}

// execute runs a job until it ends. It kills the job at its time limit, or when closing
// is closed.
func execute(j Job, closing <-chan struct{}) Result {
	result := Result{Job: j, ExitCode: -1}
	select {
	case <-closing:
		result.Err = ErrClosed
		return result
	default:
	}
	began := time.Now()
	p, err := start(j)
	if err != nil {
		result.Err = err
		return result
	}
	limit := time.NewTimer(j.Timeout)
	defer limit.Stop()
	select {
	case <-p.exited:
	case <-limit.C:
		result.Err = fmt.Errorf("%s was killed: it ran longer than %s, its time limit", j.Arguments[0], printable.Time(j.Timeout))
		p.kill()
	case <-closing:
		result.Err = fmt.Errorf("%s was killed: %w", j.Arguments[0], ErrClosed)
		p.kill()
	}
	result.Output = p.output.text()
	code, err := p.end()
	result.Took = time.Since(began)
	if result.Err == nil {
		result.ExitCode, result.Err = code, err
	}
	return result
}

// start starts a command in the root folder with an empty stdin.
func start(j Job) (*process, error) {
	if len(j.Arguments) == 0 {
		return nil, errors.New("there is no command to run")
	}
	if j.Timeout <= 0 {
		return nil, fmt.Errorf("%s has no time limit", j.Arguments[0])
	}
	program, err := find(j.Arguments[0])
	if err != nil {
		return nil, err
	}
	output, written, err := newOutput()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	defer written.Close()
	p := &process{
		cmd: &exec.Cmd{
			Path:        program,
			Args:        j.Arguments,
			Env:         append(append([]string{}, j.Environment...), "PATH="+Path), // the last PATH counts
			Dir:         "/",
			Stdout:      written,
			Stderr:      written,
			SysProcAttr: &unix.SysProcAttr{Setpgid: true},
		},
		output: output,
		exited: make(chan struct{}),
	}
	if err := p.cmd.Start(); err != nil {
		output.pipe.Close()
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	go output.read()
	go p.watch()
	return p, nil
}

// watch closes exited when the command has exited. It does not reap the command.
func (p *process) watch() {
	defer close(p.exited)
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// kill ends the whole process group. Processes that need time to clean up keep the output
// open, and have KillDelay for that. The command was not reaped yet, so the group id is
// still its own.
func (p *process) kill() {
	p.signal(unix.SIGTERM)
	patience, cancel := context.WithTimeout(context.Background(), KillDelay)
	defer cancel()
	for _, over := range []<-chan struct{}{p.exited, p.output.over} {
		select {
		case <-over:
		case <-patience.Done():
		}
	}
	p.signal(unix.SIGKILL)
	<-p.exited
}

// signal sends a signal to the process group. The group exists, because its leader was
// not reaped.
func (p *process) signal(s unix.Signal) {
	_ = unix.Kill(-p.cmd.Process.Pid, s)
}

// end returns the exit code of a command that has exited, or an error if there is none.
func (p *process) end() (code int, err error) {
	err = p.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return -1, fmt.Errorf("waiting for %s: %w", p.cmd.Path, err)
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return -1, fmt.Errorf("%s was ended by %s, which another process or the program itself sent", p.cmd.Path, unix.SignalName(status.Signal()))
	}
	return p.cmd.ProcessState.ExitCode(), nil
}
