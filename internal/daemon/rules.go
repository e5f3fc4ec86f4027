//go:build linux

package daemon

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// rules are the rules that a daemon has in force, and where they come from.
//
// The last rules that were in force for good are kept in a folder beside the daemon's
// other files. The daemon starts with them in two cases. First, if the rule files cannot
// be used, so that a typing mistake does not leave the host without a wall. Second, if
// the rule files were on trial and were not confirmed: a daemon that is killed during a
// trial, or restarted after it, must not go on with rules that may have locked somebody
// out. A file beside the control socket says that the rule files are unconfirmed. It is
// gone after a reboot.
type rules struct {
	wall        *wall.Wall       // set before anything but start is called
	service     *systemd.Service // likewise
	stores      *stores
	path        string // path of the rule files
	control     string // path of the control socket
	kept        string // folder with the last rules in force
	unconfirmed string // file that exists while the rule files are unconfirmed

	changing sync.Mutex // held during a reload, which may wait for a disk
	unkept   error      // why the rules in force could not be kept

	mu       sync.Mutex      // never held while waiting for a disk or the kernel
	inForce  *ruleset.Loaded // in force for good, not on trial
	former   bool            // inForce are the kept rules
	onTrial  *ruleset.Loaded
	degraded string    // the error in the rule files because of which the kept rules are in force
	failed   bool      // the last start or reload could not put the rule files in force
	usedAt   time.Time // when the rule files were last put in force; zero: not by this daemon
}

// newRules returns the rules of the files at path, for a daemon that listens at
// controlPath.
func newRules(path, controlPath string, s *stores) *rules {
	return &rules{stores: s, path: path, control: controlPath, kept: stateBase(controlPath) + "rules", unconfirmed: controlPath + ".unconfirmed"}
}

// nowInForce records that rule files are in force for good.
func (r *rules) nowInForce(l *ruleset.Loaded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inForce, r.former, r.onTrial, r.degraded = l, false, nil, ""
	r.failed, r.usedAt = false, time.Now()
}

// nowOnTrial records that rule files are on trial.
func (r *rules) nowOnTrial(l *ruleset.Loaded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onTrial = l
	r.failed, r.usedAt = false, time.Now()
}

// reloadFailed records that the rule files could not be put in force.
func (r *rules) reloadFailed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

// keep saves the rules that are in force for good. It is called with changing held.
func (r *rules) keep() error {
	r.mu.Lock()
	inForce, kept := r.inForce, r.former
	r.mu.Unlock()
	if kept {
		return nil // the rules in force are the kept ones
	}
	if r.unkept = inForce.Save(r.kept); r.unkept != nil {
		r.unkept = fmt.Errorf("the rules in force cannot be saved for a start with unusable rule files: %w", r.unkept)
	}
	return r.unkept
}

// areUnconfirmed reports whether these rule files were on trial, in a daemon of this
// user, and not confirmed.
func (r *rules) areUnconfirmed() bool {
	_, are := r.unconfirmedSince()
	return are
}

// unconfirmedSince returns when the last trial of these rule files began, if nobody has
// confirmed them since.
func (r *rules) unconfirmedSince() (since time.Time, are bool) {
	info, err := os.Lstat(r.unconfirmed)
	if err != nil || !info.Mode().IsRegular() {
		return since, false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return info.ModTime(), ok && int(owner.Uid) == os.Geteuid()
}

// markUnconfirmed records that the rule files in force are on trial.
func (r *rules) markUnconfirmed() error {
	if err := os.WriteFile(r.unconfirmed, nil, 0o600); err != nil {
		return fmt.Errorf("recording that the new rules are on trial: %w", err)
	}
	return nil
}

// markConfirmed records that the rule files in force are confirmed.
func (r *rules) markConfirmed() error {
	if err := os.Remove(r.unconfirmed); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the rules are in force, but a restart would use the former ones: %w", err)
	}
	return nil
}
