//go:build linux

package nft

import (
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Whole calls read, which reads tables over conn. The error wraps ERESTART if any table of
// the network namespace changed meanwhile: read may then have missed a part, or have parts
// from before and after the change. The kernel flags a dump that a change has interrupted
// (NLM_F_DUMP_INTR of linux/netlink.h), but the library ignores the flag, and nothing flags
// a change between two dumps. So Whole compares the generation of the tables.
func Whole(conn *nftables.Conn, read func() error) error {
	before, generationErr := conn.GetGen()
	if err := read(); err != nil {
		return err // it wraps its cause, and the error of GetGen does not
	}
	if generationErr != nil {
		return generationErr
	}
	after, err := conn.GetGen()
	if err != nil {
		return err
	}
	if before.ID != after.ID {
		return fmt.Errorf("the firewall's rules changed while they were read: %w", unix.ERESTART)
	}
	return nil
}
