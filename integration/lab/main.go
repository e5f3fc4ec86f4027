// Package lab is what the kernel tests share: two hosts on a cable, a daemon on one of
// them, and a client on the other. All of it is on the real kernel, in network namespaces
// that each test makes for itself (package internal/netlab), without root where the system
// allows that. The rest of the machine sees nothing of it.
//
// Each folder beside this one has the tests of one subject. Its TestMain calls [Main].
//
// If a program that a test needs, such as nmap, is missing, the test is skipped and names
// it. Where CI is set, the test fails instead.
package lab

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/knockwall/knockwall/internal/netlab"
)

// binaryVariable names the program under test. If it is not set, Main builds the program.
const binaryVariable = "KNOCKWALL_BINARY"

// Program is a program that tests need besides knockwall, and how Go builds it.
type Program struct {
	Name  string
	Build []string // arguments of go build
}

// Main runs the tests of a package in new namespaces, with a knockwall and more programs that
// it has built. [NeedsProgram] finds these. If the machine allows no namespaces, Main skips
// all tests, or fails where CI is set. It does not return.
func Main(m *testing.M, more ...Program) {
	if os.Getenv(unownedVariable) != "" {
		if err := unownedDaemon(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "unowned: %v\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if netlab.Inside() {
		manyAtOnce()
		os.Exit(m.Run())
	}
	code, err := inNamespaces(more)
	if err != nil {
		fmt.Fprintf(os.Stderr, "integration: %v\n", err)
		code = 1
		if errors.Is(err, netlab.ErrForbidden) && os.Getenv("CI") == "" {
			fmt.Fprintln(os.Stderr, "integration: SKIPPED, all tests of this package: see above")
			code = 0
		}
	}
	os.Exit(code)
}

// manyAtOnce runs more tests at once than there are CPUs, unless -parallel says how many:
// most of the time they wait.
func manyAtOnce() {
	flag.Parse()
	n := max(6, runtime.GOMAXPROCS(0))
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.parallel" {
			n = 0
		}
	})
	if n > 0 {
		flag.Set("test.parallel", strconv.Itoa(n))
	}
}

// inNamespaces runs this program again, in namespaces of its own, and returns its exit
// code.
func inNamespaces(more []Program) (code int, err error) {
	runtime.LockOSThread() // the child ends with the thread
	child, err := netlab.Command(os.Args[1:]...)
	if err != nil {
		return 0, err
	}
	if BinaryPath() == "" {
		folder, err := os.MkdirTemp("", "knockwall-test-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(folder)
		binary := filepath.Join(folder, "knockwall")
		arguments := []string{"build", "-o", binary}
		if raceEnabled {
			arguments = append(arguments, "-race")
		}
		build := exec.Command("go", append(arguments, "../../cmd/knockwall")...)
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("building knockwall: %w\n%s", err, out)
		}
		for _, p := range more {
			build := exec.Command("go", append([]string{"build", "-o", filepath.Join(folder, p.Name)}, p.Build...)...)
			if out, err := build.CombinedOutput(); err != nil {
				return 0, fmt.Errorf("building %s: %w\n%s", p.Name, err, out)
			}
		}
		child.Env = append(child.Env, "PATH="+folder+string(filepath.ListSeparator)+os.Getenv("PATH"))
		child.Env = append(child.Env, binaryVariable+"="+binary)
	}
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The fuzzer talks to its workers over files that it hands down.
	err = child.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
