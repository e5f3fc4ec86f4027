// Package command runs the commands of rule files: without a shell, and each for
// so long, so many at once, and with so much output as can be borne.
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

// MaxRunning is how many commands run at once. More would have a knock, which
// strangers can repeat, take the machine from whoever it is for.
const MaxRunning = 8

// MaxWaiting is how many commands wait for others to end. More of them come faster
// than they are run, and what waited longer would hardly be of use.
const MaxWaiting = 256

// MaxOutput is how many bytes are kept of what a command writes: enough for an
// error message, and not too much for a log.
const MaxOutput = 4096

// Path is where a program is looked for, and the PATH that it is given. The
// daemon's own depends on who has started it.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// KillDelay is how long a command that has to end may tidy up, between SIGTERM and
// SIGKILL.
const KillDelay = 2 * time.Second

// WaitDelay is how long output is waited for that may still come when a command has
// ended, but something it has started has not. What writes later gets SIGPIPE.
const WaitDelay = 500 * time.Millisecond

// ErrClosed is the error of a command that was not run, or not to its end, because
// the runner was closed.
var ErrClosed = errors.New("knockwall stops")

// Job is one command to run. Nothing of it may be changed once it is handed over.
type Job struct {
	Key         string        // jobs of one key run one after the other, in the order they were given
	Arguments   []string      // program first: an absolute path, or a name that is looked for in Path
	Environment []string      // KEY=value, beside PATH; nothing else is inherited
	Timeout     time.Duration // above 0, from its start
	Vital       bool          // is queued however many wait
	For         any           // for who has given it, and hears how it ended
}

// Result is what became of a job.
type Result struct {
	Job      Job
	ExitCode int // -1 if it did not exit by itself

	// Output is what it wrote to stdout and stderr together: the first MaxOutput
	// bytes, without newlines at the end, and with U+FFFD for each control character
	// but newline and tab and for each byte that is not of UTF-8. If there was more,
	// a line at the end says so.
	Output string

	Err  error         // why there is no exit code
	Took time.Duration // from its start; 0 if it was not started
}

// find returns the path of a program.
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

// Exists reports whether there is such a program, which can be run. Commands are run on
// Linux, and another system cannot tell which programs a host has: there it is always true.
func Exists(name string) bool {
	if runtime.GOOS != "linux" {
		return true
	}
	path, err := find(name)
	return err == nil && canRun(path)
}

// canRun reports whether a path is a file that somebody may run.
func canRun(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
