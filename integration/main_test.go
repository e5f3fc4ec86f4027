// Package integration tests knockwall on the real kernel: its nftables, NFLOG,
// NFQUEUE and conntrack, in network namespaces that each test makes for itself
// (package internal/netlab), without root where the system allows that. Nothing
// of it is visible to the rest of the machine.
//
// What a test needs and a machine may lack, such as nmap, is asked for by name;
// the test is skipped then, and fails where CI is set.
package integration

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

// binaryVariable names the knockwall under test; where it is not set, the tests
// build one.
const binaryVariable = "KNOCKWALL_BINARY"

func TestMain(m *testing.M) {
	if os.Getenv(unownedVariable) != "" {
		if err := unownedDaemon(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "unowned: %v\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(machineVariable) != "" {
		// It returns only if it fails.
		fmt.Fprintf(os.Stderr, "machine: %v\n", becomeMachine(os.Args[1], os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(1)
	}
	if netlab.Inside() {
		manyAtOnce()
		os.Exit(m.Run())
	}
	code, err := inNamespaces()
	if err != nil {
		fmt.Fprintf(os.Stderr, "integration: %v\n", err)
		code = 1
		if errors.Is(err, netlab.ErrForbidden) && os.Getenv("CI") == "" {
			fmt.Fprintln(os.Stderr, "integration: SKIPPED, all of it: see above")
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

// inNamespaces runs the tests again, in namespaces of their own.
func inNamespaces() (code int, err error) {
	runtime.LockOSThread() // the child ends with the thread
	child, err := netlab.Command(os.Args[1:]...)
	if err != nil {
		return 0, err
	}
	if os.Getenv(binaryVariable) == "" {
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
		build := exec.Command("go", append(arguments, "../cmd/knockwall")...)
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("building knockwall: %w\n%s", err, out)
		}
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
