//go:build linux

package command_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/command"
)

func expect(t *testing.T, got command.Result, output string) {
	t.Helper()
	if got.Err != nil || got.ExitCode != 0 || got.Output != output {
		t.Errorf("exit code %d, %v, output %.300q, want %.300q", got.ExitCode, got.Err, got.Output, output)
	}
}

func TestTheResult(t *testing.T) {
	j := script("echo out; echo err >&2; exit 7")
	j.Key = "key"
	got := run(t, j)
	if got.ExitCode != 7 || got.Err != nil || got.Output != "out\nerr" || got.Took <= 0 {
		t.Errorf("%+v", got)
	}
	if got.Job.Key != "key" || !slices.Equal(got.Job.Arguments, j.Arguments) {
		t.Errorf("it is of another job: %+v", got.Job)
	}
}

func TestTheEnvironmentIsThatOfTheJob(t *testing.T) {
	t.Setenv("OF_THE_DAEMON", "secret")
	t.Setenv("PATH", "/of/the/daemon:"+os.Getenv("PATH"))
	j := job("/usr/bin/env")
	j.Environment = []string{"A=1", "B=with a space; $(and more)", "PATH=/elsewhere", "A=2"}
	got := run(t, j)
	lines := strings.Split(got.Output, "\n")
	slices.Sort(lines)
	if want := []string{"A=2", "B=with a space; $(and more)", "PATH=" + command.Path}; got.Err != nil || !slices.Equal(lines, want) {
		t.Errorf("%q, %v, want %q", lines, got.Err, want)
	}
	j.Environment = nil
	expect(t, run(t, j), "PATH="+command.Path)
}

func TestTheProcessHasNothingElseOfTheDaemon(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	file, err := os.Create(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := run(t, script(`
		pwd
		cat # which has nothing to read
		set -- $(cat /proc/$$/stat); echo $(($1 - $5)) # a process group of its own
		grep flags: /proc/self/fdinfo/1
		readlink /proc/$$/fd/* | grep /secret
		true`))
	expect(t, got, "/\n0\nflags:\t01") // O_WRONLY, and writes block
}

func TestArgumentsArriveAsGiven(t *testing.T) {
	arguments := []string{"with space", "", `"quoted'`, "$(touch /tmp/x)", "`id`", ";", "| cat", "*", `\`, "new\nline", "$PATH", "-n", "ü\xff"}
	want := strings.Join(arguments, "]\n[")
	got := run(t, job(append([]string{"/usr/bin/printf", "[%s]\n"}, arguments...)...))
	expect(t, got, strings.ReplaceAll("["+want+"]", "\xff", "\ufffd"))
}

func TestAProgramIsLookedForInPath(t *testing.T) {
	folder := t.TempDir()
	if err := os.Symlink("/bin/true", filepath.Join(folder, "only-of-the-daemon")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder)
	expect(t, run(t, job("sh", "-c", "echo $0")), "sh")
	got := run(t, job("only-of-the-daemon"))
	if !errors.Is(got.Err, exec.ErrNotFound) || !strings.Contains(got.Err.Error(), "only-of-the-daemon") || got.ExitCode != -1 {
		t.Errorf("%+v", got)
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	folder := t.TempDir()
	plain := filepath.Join(folder, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	noTime := job("/bin/true")
	noTime.Timeout = 0
	for name, test := range map[string]struct {
		job   command.Job
		is    error
		about string
	}{
		"missing":         {job: job(folder + "/missing"), is: fs.ErrNotExist, about: folder + "/missing"},
		"missing in Path": {job: job("missing-program"), is: exec.ErrNotFound, about: "missing-program"},
		"not executable":  {job: job(plain), is: fs.ErrPermission, about: plain},
		"a folder":        {job: job(folder), is: fs.ErrPermission, about: folder},
		"relative":        {job: job("./plain"), about: `"./plain" is neither`},
		"empty":           {job: job(""), about: `"" is neither`},
		"none":            {job: job(), about: "no command"},
		"NUL":             {job: job("/bin/echo", "a\x00b"), is: unix.EINVAL, about: "/bin/echo"},
		"no time":         {job: noTime, about: "no time limit"},
	} {
		got := run(t, test.job)
		if got.ExitCode != -1 || got.Err == nil || got.Took != 0 {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if !strings.Contains(got.Err.Error(), test.about) || test.is != nil && !errors.Is(got.Err, test.is) {
			t.Errorf("%s: %v", name, got.Err)
		}
	}
}

func TestASignalOfItsOwn(t *testing.T) {
	got := run(t, script("echo before; kill -SEGV $$"))
	if got.ExitCode != -1 || got.Err == nil || !strings.Contains(got.Err.Error(), "/bin/sh was ended by SIGSEGV") || got.Output != "before" {
		t.Errorf("%+v", got)
	}
}

func TestOutputIsBounded(t *testing.T) {
	more := func(n int) string { return fmt.Sprintf("\n… and %d more bytes", n) }
	for text, want := range map[string]string{
		"printf %4096s":             strings.Repeat(" ", 4096),
		"printf %4097s":             strings.Repeat(" ", 4096) + more(1),
		"printf %1000000s":          strings.Repeat(" ", 4096) + more(1000000-4096),
		"printf %4095sü":            strings.Repeat(" ", 4095) + more(1),
		"printf %4094sü":            strings.Repeat(" ", 4094) + "ü",
		"printf %4094sü\\\\n":       strings.Repeat(" ", 4094) + "ü" + more(1),
		"printf '%4093s\U0001f600'": strings.Repeat(" ", 4093) + more(1),
		"printf '%4095s\\377x'":     strings.Repeat(" ", 4095) + "\ufffd" + more(1),
	} {
		got := run(t, script(text))
		expect(t, got, want)
	}
}

func TestOutputIsPrintable(t *testing.T) {
	for format, want := range map[string]string{
		``:                        "",
		`\n\n`:                    "",
		`\n a\tb\n\n`:             "\n a\tb",
		`a\r\n`:                   "a\ufffd",
		`\033[31mred\007\000\177`: "\ufffd[31mred\ufffd\ufffd\ufffd",
		`\302\205`:                "\ufffd", // U+0085, a control character
		`\377\376`:                "\ufffd\ufffd",
		`\303\274 \303`:           "ü \ufffd",
	} {
		expect(t, run(t, job("/usr/bin/printf", format)), want)
	}
}

func TestAWriterThatNeverEnds(t *testing.T) {
	t.Parallel()
	j := script("while :; do echo yes; done")
	j.Timeout = 300 * time.Millisecond
	got := run(t, j)
	killed(t, got, j.Timeout)
	if beginning, end, _ := strings.Cut(got.Output, "\n…"); beginning != strings.Repeat("yes\n", 1024)[:4095] || !strings.HasSuffix(end, " bytes") {
		t.Errorf("%d bytes, and at the end %q", len(beginning), end)
	}
}

// killed checks that the time limit ended a command, and in time.
func killed(t *testing.T, got command.Result, limit time.Duration) {
	t.Helper()
	if got.ExitCode != -1 || got.Err == nil || !strings.Contains(got.Err.Error(), "longer than "+limit.String()) {
		t.Errorf("exit code %d, %v", got.ExitCode, got.Err)
	}
	// A busy machine gets some more time.
	if most := limit + command.KillDelay + command.WaitDelay + 5*time.Second; got.Took < limit || got.Took > most {
		t.Errorf("it took %v, want %v to %v", got.Took, limit, most)
	}
}

func TestTheLimitAsksFirst(t *testing.T) {
	t.Parallel()
	j := script(`exec 2>/dev/null; trap 'echo tidied; exit 0' TERM; while :; do sleep 0.01; done`)
	j.Timeout = 2 * time.Second // the program has set its trap by then
	got := run(t, j)
	killed(t, got, j.Timeout)
	if got.Output != "tidied" || got.Took > j.Timeout+command.KillDelay {
		t.Errorf("%+v", got)
	}
}

// Children that remain when the command ends at SIGTERM get the signal too, and have
// KillDelay to clean up.
func TestTheLimitAsksGrandchildren(t *testing.T) {
	t.Parallel()
	j := script(`exec 2>/dev/null; sh -c 'trap "sleep 0.3; echo tidied; exit" TERM; while :; do sleep 0.01; done'; echo never`)
	j.Timeout = 2 * time.Second // the programs have set their traps by then
	got := run(t, j)
	killed(t, got, j.Timeout)
	if got.Output != "tidied" {
		t.Errorf("%+v", got)
	}
}

// stubborn returns a job that starts a child, which writes its process id and ignores
// SIGTERM, and waits for it.
func stubborn(redirection string) command.Job {
	j := script(`KNOCKWALL_COMMAND_ROLE=stubborn "$0" ` + redirection + ` & wait`)
	j.Arguments[3] = os.Args[0]
	return j
}

func TestTheLimitEndsGrandchildren(t *testing.T) {
	t.Parallel()
	aside := filepath.Join(t.TempDir(), "pid") // the file stays until the whole group has ended
	for name, test := range map[string]struct {
		job command.Job
		pid func(command.Result) string
	}{
		"that hold the output": {stubborn(""), func(r command.Result) string { return r.Output }},
		"that do not": {stubborn(">" + aside + " 2>&1"), func(command.Result) string {
			pid, err := os.ReadFile(aside)
			if err != nil {
				t.Error(err)
			}
			return string(pid)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.job.Timeout = 3 * time.Second // it ignores SIGTERM by then
			got := run(t, test.job)
			killed(t, got, test.job.Timeout)
			gone(t, number(t, test.pid(got)))
		})
	}
}

func TestTheLimitEndsWhatIgnoresItOrIsStopped(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`trap "" TERM; echo $$; while :; do sleep 1; done`,
		`echo $$; kill -STOP $$`,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			j := script(text)
			j.Timeout = 2 * time.Second // it ignores SIGTERM or is stopped by then
			got := run(t, j)
			killed(t, got, j.Timeout)
			gone(t, number(t, got.Output))
		})
	}
}

// A process that has left the process group lives on, and the result does not wait for
// it.
func TestTheLimitDoesNotWaitForOthers(t *testing.T) {
	t.Parallel()
	j := script("setsid sh -c 'echo $$; exec sleep 100' & wait")
	j.Timeout = 2 * time.Second // it has left by then
	got := run(t, j)
	killed(t, got, j.Timeout)
	pid := number(t, got.Output)
	if !alive(t, pid) {
		t.Error("it was killed")
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	gone(t, pid)
}

// A command that has ended has a result, even if its children live on. They are left
// alone.
func TestABackgroundChild(t *testing.T) {
	began := time.Now()
	got := run(t, script("sleep 100 & echo $!; exit 3"))
	pid := number(t, got.Output)
	defer gone(t, pid)
	defer unix.Kill(pid, unix.SIGKILL)
	if got.ExitCode != 3 || got.Err != nil {
		t.Errorf("%+v", got)
	}
	if took := time.Since(began); took > command.WaitDelay+5*time.Second {
		t.Errorf("it took %v", took)
	}
	if !alive(t, pid) {
		t.Error("it was killed")
	}
}

// Output that is written soon after the command has ended is kept.
func TestOutputThatComesLate(t *testing.T) {
	expect(t, run(t, script("(until grep -q ') Z ' /proc/$$/stat; do :; done; echo late) & echo early")), "early\nlate")
}

func TestNoDescriptorIsLeft(t *testing.T) {
	count := func() int {
		descriptors, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(descriptors)
	}
	r, results := runner(t)
	before := 0
	for i := range 20 {
		j := script("exit " + strconv.Itoa(i%3))
		if i%4 == 0 {
			j = job("/missing")
		}
		r.Run(j)
		next(t, results)
		if i == 4 { // the first runs open files that stay, such as that of the poller
			before = count()
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors have become %d", before, after)
	}
}
