package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/ruleset"
)

// daemonUser is as whom systemd starts the daemon (knockwall.service).
const daemonUser = "knockwall"

// defaultConfig is the folder of rule files that the service reads.
const defaultConfig = "/etc/knockwall.d"

// review reads rule files for who asks. To root and to the daemon's user all is wrong
// that the daemon would refuse, but for credentials where the service's are not at hand.
func review(path string) *ruleset.Loaded {
	isDaemon := false
	if daemon, err := user.Lookup(daemonUser); err == nil {
		isDaemon = daemon.Uid == strconv.Itoa(os.Geteuid())
	}
	if isDaemon || os.Geteuid() == 0 {
		return ruleset.Rehearse(path)
	}
	return ruleset.Review(path)
}

// asDaemon runs this very command as the daemon's user, if root asks about the rule
// files of the service: what root can read, the daemon may not. Rule files elsewhere are
// no service's, and their drafts may lie where only root can read them. It reports
// whether it has done so.
func asDaemon(c *cobra.Command, path string, arguments ...string) (done bool, err error) {
	inDefault := path == defaultConfig || strings.HasPrefix(filepath.Clean(path), defaultConfig+"/")
	daemon, lookup := user.Lookup(daemonUser)
	if !inDefault || os.Geteuid() != 0 || lookup != nil {
		return false, nil
	}
	credential, err := credentialOf(daemon)
	if err != nil {
		return false, err
	}
	child := exec.CommandContext(c.Context(), "/proc/self/exe", append([]string{c.Name(), "--config", path}, arguments...)...)
	child.Stdout, child.Stderr = c.OutOrStdout(), c.ErrOrStderr()
	child.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	err = child.Run()
	var failed *exec.ExitError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &failed) && failed.ExitCode() == exitUsage:
		return true, &usageError{errSaid}
	case errors.As(err, &failed):
		return true, errSaid
	}
	fmt.Fprintf(c.ErrOrStderr(), "knockwall: whether the daemon's user %s can read the files is not known: %v\n", daemonUser, err)
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
