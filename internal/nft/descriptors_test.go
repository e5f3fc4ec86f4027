//go:build linux

package nft_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/nft"
)

// A program with many open files asks the kernel like any other.
func TestTheKernelIsAskedWithManyFilesOpen(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const many = 1100 // more than select has room for
	if limit.Cur < many+100 {
		limit.Cur = min(limit.Max, many+100)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < many+100 {
			t.Skipf("no more than %d files may be open: %v", limit.Max, err)
		}
	}
	for range many {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	k, err := nft.OpenKernel()
	if errors.Is(err, unix.EPERM) {
		return // and so far it got
	}
	if err != nil {
		t.Logf("it answers: %v", err)
		return
	}
	k.Close()
}
