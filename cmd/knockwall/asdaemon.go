//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/ownership"
	"github.com/knockwall/knockwall/ruleset"
)

// review reads rule files for who asks. To root and to the daemon's user all is wrong
// that the daemon would refuse, but for credentials outside of a unit of systemd, as only
// in one they are at hand.
func review(path string) *ruleset.Loaded {
	isDaemon := false
	if daemon, err := user.Lookup(ownership.DaemonUser); err == nil {
		isDaemon = daemon.Uid == strconv.Itoa(os.Geteuid())
	}
	switch {
	case isDaemon && os.Getenv("INVOCATION_ID") != "": // of systemd.exec(5)
		return ruleset.Load(path)
	case isDaemon || os.Geteuid() == 0:
		return ruleset.Rehearse(path)
	}
	return ruleset.Review(path)
}

// refusesDaemon reports whether the daemon's user could not use the rule files, if root
// asks about those of the service, and says why, as check does with these flags: what root
// can read, the daemon may not.
// Rule files elsewhere are no service's, and their drafts may lie where only root can read
// them.
func refusesDaemon(c *cobra.Command, path string, flags ...string) (bool, error) {
	inDefault := path == defaultConfig || strings.HasPrefix(filepath.Clean(path), defaultConfig+"/")
	daemon, lookup := user.Lookup(ownership.DaemonUser)
	if !inDefault || os.Geteuid() != 0 || lookup != nil {
		return false, nil
	}
	credential, err := credentialOf(daemon)
	if err != nil {
		return false, err
	}
	asDaemon := func(stdout, stderr io.Writer) error {
		child := exec.CommandContext(c.Context(), "/proc/self/exe", append([]string{"check", "--config", path}, flags...)...)
		child.Stdout, child.Stderr = stdout, stderr
		child.Env = append(os.Environ(), "INVOCATION_ID=") // of whatever unit root is in
		child.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		return child.Run()
	}
	err = asDaemon(io.Discard, io.Discard)
	var failed *exec.ExitError
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &failed) && failed.ExitCode() == exitUsage:
		_ = asDaemon(c.OutOrStdout(), c.ErrOrStderr()) // fails again, and is heard
		return true, nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "knockwall: whether the daemon's user %s can read the files is not known: %v\n", ownership.DaemonUser, err)
	return false, nil
}

// credentialOf returns a user's numbers.
func credentialOf(u *user.User) (*syscall.Credential, error) {
	var numbers []uint32
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("asking for the groups of the user %s: %w", u.Username, err)
	}
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("the user %s: %w", u.Username, err)
		}
		numbers = append(numbers, uint32(n))
	}
	return &syscall.Credential{Uid: numbers[0], Gid: numbers[1], Groups: numbers[2:]}, nil
}
