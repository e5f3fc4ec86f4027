//go:build linux && !client

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

// review reads rule files as strictly as the user requires. For root and the daemon's user
// everything is an error that the daemon would refuse. Credentials are an exception
// outside of a systemd unit, as they exist only there.
func review(path string) *ruleset.Loaded {
	isDaemon := false
	if daemon, err := user.Lookup(ownership.DaemonUser); err == nil {
		isDaemon = daemon.Uid == strconv.Itoa(os.Geteuid())
	}
	switch {
	case isDaemon && os.Getenv("INVOCATION_ID") != "": // systemd.exec(5): this is a unit
		return ruleset.Load(path)
	case isDaemon || os.Geteuid() == 0:
		return ruleset.Rehearse(path)
	}
	return ruleset.Review(path)
}

// refusesDaemon reports whether the daemon's user could not use the rule files, and prints
// why, as check does with these flags. Root can read files that the daemon cannot. It
// checks only when root asks about the rule files of the service. Rule files elsewhere
// belong to no service, and may be drafts that only root can read.
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
		child.Env = append(os.Environ(), "INVOCATION_ID=") // root may be in some unit
		child.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		return child.Run()
	}
	err = asDaemon(io.Discard, io.Discard)
	var failed *exec.ExitError
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &failed) && failed.ExitCode() == exitUsage:
		_ = asDaemon(c.OutOrStdout(), c.ErrOrStderr()) // fails again, now with output
		return true, nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "knockwall: cannot find out whether the daemon's user %s can read the files: %v\n", ownership.DaemonUser, err)
	return false, nil
}

// credentialOf returns the user and group IDs of a user.
func credentialOf(u *user.User) (*syscall.Credential, error) {
	var numbers []uint32
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("looking up the groups of the user %s: %w", u.Username, err)
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
