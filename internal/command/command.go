// Package command runs the commands of rule files. It uses no shell, and limits their
// time, their number and their output.
package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// MaxRunning is how many commands run at once. Strangers can repeat a knock that they
// have seen, so without a limit its commands could use up the machine.
const MaxRunning = 8

// MaxWaiting is how many commands wait for others to end. If there are more, they come
// faster than they run, and a command that waited even longer would hardly be of use.
const MaxWaiting = 256

// MaxOutput is how many bytes of a command's output are kept: enough for an error
// message, and not too much for a log.
const MaxOutput = 4096

// Path is where programs are searched, and the PATH of commands. The daemon's own PATH
// depends on what started it.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// KillDelay is the time between SIGTERM and SIGKILL, in which a command can clean up.
const KillDelay = 2 * time.Second

// WaitDelay is how long a Runner waits for output after a command has ended, if a process
// that the command started still holds the pipe. A later write gets SIGPIPE.
const WaitDelay = 500 * time.Millisecond

// ErrClosed means that a command was not run, or was killed, because the runner was
// closed.
var ErrClosed = errors.New("knockwall stops")

// Job is one command to run. Do not change it after passing it to a Runner.
type Job struct {
	Key         string        // jobs with the same key run one after the other, in order
	Arguments   []string      // program first: an absolute path, or a name to search in Path
	Environment []string      // KEY=value; the command gets only these and PATH
	Timeout     time.Duration // time limit from the start; must be above 0
	Vital       bool          // waits even if MaxWaiting others do
	For         any           // the caller's data, for the report
}

// Result is the result of a job.
type Result struct {
	Job      Job
	ExitCode int // -1 if the command did not exit by itself

	// Output is stdout and stderr together: the first MaxOutput bytes, without newlines
	// at the end. U+FFFD replaces each control character except newline and tab, and each
	// byte that is not UTF-8. If bytes were left out, the last line says how many.
	Output string

	Err  error         // why there is no exit code
	Took time.Duration // time from the start; 0 if the command was not started
}

// find returns the path of a program, or an error if it cannot be run.
func find(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is neither an absolute path nor the name of a program", name)
	}
	for _, folder := range filepath.SplitList(Path) {
		if path := filepath.Join(folder, name); canRun(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w in %s: install it, or give its absolute path", name, exec.ErrNotFound, Path)
}

// Exists reports whether a program exists and can be run. Commands run only on Linux. On
// other systems Exists cannot know the host's programs and returns true.
func Exists(name string) bool {
	if runtime.GOOS != "linux" {
		return true
	}
	path, err := find(name)
	return err == nil && canRun(path)
}

// canRun reports whether a path is an executable file.
func canRun(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
