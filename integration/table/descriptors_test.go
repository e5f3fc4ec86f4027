package table

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/nft"
)

// A program with more open files than select(2) supports can use nftables.
func TestTheKernelIsAskedWithManyFilesOpen(t *testing.T) {
	l := lab.New(t)
	const many = 1100
	var limit unix.Rlimit
	lab.Must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	if limit.Max < 2*many {
		t.Skipf("this user may have no more than %d files open", limit.Max)
	}
	limit.Cur = max(limit.Cur, 2*many)
	lab.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	for range many {
		f, err := os.Open("/dev/null")
		lab.Must(t, err)
		defer f.Close()
	}
	lab.Must(t, l.Server.Do(func() error {
		k, err := nft.OpenKernel()
		if err != nil {
			return err
		}
		_, err = k.Others("")
		return errors.Join(err, k.Close())
	}))
}
