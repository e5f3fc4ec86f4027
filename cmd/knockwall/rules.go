//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
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
	wall        *wall.Wall
	service     *systemd.Service
	memory      memory
	path        string // path of the rule files
	kept        string // folder with the last rules in force
	unconfirmed string // file that exists while the rule files are unconfirmed

	changing sync.Mutex // held during a reload, which may wait for a disk
	unkept   error      // why the rules in force could not be kept

	mu       sync.Mutex      // never held while waiting for a disk or the kernel
	inForce  *ruleset.Loaded // in force for good, not on trial
	former   bool            // inForce are the kept rules
	onTrial  *ruleset.Loaded
	degraded string // the error in the rule files because of which the kept rules are in force
}

// newRules returns the rules of the files at path, for a daemon that listens at
// controlPath.
func newRules(path, controlPath string) *rules {
	return &rules{path: path, kept: stateBase(controlPath) + "rules", unconfirmed: controlPath + ".unconfirmed"}
}

// start returns the rules to start with, and writes a message if they are not those of
// the rule files. A wall on trial starts with the rule files, because they are what is
// tried.
func (r *rules) start(said io.Writer, onTrial bool) (*ruleset.Config, error) {
	if !onTrial && r.areUnconfirmed() {
		former, err := ruleset.Recall(r.kept, r.path)
		if err == nil && former.Config == nil {
			err = errors.New(firstError(former))
		}
		if err != nil {
			return nil, usage("the rules of %s were on trial and not confirmed, and the former ones cannot be read: %w. "+
				"Remove %s to start with the new ones", r.path, err, r.unconfirmed)
		}
		fmt.Fprintf(systemd.At(said, systemd.Warning), "The rules of %s were on trial and not confirmed: the former ones are in\n"+
			"force. Type `knockwall reload` to put the new ones in force.\n", r.path)
		r.inForce, r.former = former, true
		return former.Config, nil
	}
	loaded := ruleset.Load(r.path)
	level := systemd.Warning
	if loaded.Config == nil {
		level = systemd.Error
	}
	if err := writeDiagnostics(systemd.At(said, level), loaded); err != nil {
		return nil, err
	}
	if loaded.Config != nil {
		r.inForce = loaded
		return loaded.Config, nil
	}
	if onTrial {
		return nil, &usageError{errSaid}
	}
	kept, err := ruleset.Recall(r.kept, r.path)
	if err == nil && kept.Config == nil {
		err = fmt.Errorf("the rules that were in force last, in %s, cannot be used either: %s", r.kept, firstError(kept))
	}
	if errors.Is(err, ruleset.ErrNoneKept) {
		return nil, &usageError{errSaid}
	}
	if err != nil {
		return nil, &usageError{err}
	}
	fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: the rule files cannot be used: the last rules that were in force are in force.\n"+
		"Correct the errors above, then type `knockwall reload`.\n")
	if err := writeDiagnostics(systemd.At(said, systemd.Warning), kept); err != nil {
		return nil, err
	}
	r.inForce, r.former, r.degraded = kept, true, firstError(loaded)
	return kept.Config, nil
}

// firstError returns the first error in rule files, in one line.
func firstError(l *ruleset.Loaded) string {
	for _, d := range l.Diagnostics {
		if d.Severity != hcl.DiagError {
			continue
		}
		text := d.Summary + ": " + d.Detail
		if d.Subject != nil {
			text = fmt.Sprintf("%s line %d: %s", d.Subject.Filename, d.Subject.Start.Line, text)
		}
		return strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ".")
	}
	return "they are wrong"
}

// areUnconfirmed reports whether these rule files were on trial, in a daemon of this
// user, and not confirmed.
func (r *rules) areUnconfirmed() bool {
	info, err := os.Lstat(r.unconfirmed)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Geteuid()
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

// keepFirst saves the rules that the daemon has started with. It waits at most
// diskPatience for a disk that hangs.
func (r *rules) keepFirst(said io.Writer) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.changing.Lock()
		defer r.changing.Unlock()
		if err := r.keep(); err != nil {
			fmt.Fprintf(systemd.At(said, systemd.Warning), "knockwall: %v\n", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(diskPatience):
	}
}

// diskPatience is how long the start waits for the disk to take the rules.
const diskPatience = 2 * time.Second

// mindInterval is how often the daemon checks whether what was missing is back.
const mindInterval = 5 * time.Second

// mind repairs what needs no decision. It saves the rules in force if that failed before.
// It puts the rule files in force again, if they are the same as those in force, when all
// files that they name can be read again.
func (r *rules) mind(ctx context.Context, said io.Writer) {
	ticker := time.NewTicker(mindInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r.changing.Lock()
		if r.unkept != nil {
			_ = r.keep()
		}
		recovered := r.recover()
		r.changing.Unlock()
		if recovered {
			fmt.Fprintf(said, "knockwall: the rule files can be used again and are in force.\n")
		}
	}
}

// recover puts the rule files in force again, if only the files that they name were
// wrong. If their text has changed, an administrator has to decide. It is called with
// changing held.
func (r *rules) recover() bool {
	r.mu.Lock()
	inForce, degraded := r.inForce, r.degraded != ""
	r.mu.Unlock()
	if !degraded || r.wall.OnTrial() {
		return false
	}
	if differs, err := inForce.Differs(); differs || err != nil {
		return false
	}
	loaded := ruleset.Load(r.path)
	if loaded.Config == nil || r.memory.open(loaded.Config) != nil || r.wall.Apply(loaded.Config) != nil {
		return false
	}
	r.nowInForce(loaded)
	_ = r.keep() // mind tries it again
	return true
}

// nowInForce records that rule files are in force for good.
func (r *rules) nowInForce(l *ruleset.Loaded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inForce, r.former, r.onTrial, r.degraded = l, false, nil, ""
}

// reload reads the rule files again, and puts them in force, or on trial if confirm is
// not 0.
func (r *rules) reload(confirm time.Duration) (doors int, warnings string, err error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.service.Reloading()
	defer r.service.Ready()
	loaded := ruleset.Load(r.path)
	var text strings.Builder
	if err := loaded.WriteText(&text, otherwiseWide, false); err != nil {
		return 0, "", err
	}
	if loaded.Config == nil {
		return 0, "", &control.RulesError{Diagnostics: text.String()}
	}
	_, here := onReading(loaded.Config)
	if err := here.WriteText(&text, otherwiseWide, false); err != nil {
		return 0, "", err
	}
	if err := r.memory.open(loaded.Config); err != nil {
		return 0, "", fmt.Errorf("the new rules need a file that remembers what was used and which commands are due: %w", err)
	}
	if confirm == 0 {
		if err := r.wall.Apply(loaded.Config); err != nil {
			return 0, "", err
		}
		r.nowInForce(loaded)
		if err := r.keep(); err != nil {
			fmt.Fprintf(&text, "Warning: %v\n", err)
		}
		return len(loaded.Config.Doors), text.String(), r.confirmed()
	}
	if r.wall.OnTrial() {
		return 0, "", wall.ErrOnTrial // the kept rules are those from before that trial
	}
	if r.unkept != nil {
		if err := r.keep(); err != nil {
			return 0, "", fmt.Errorf("a trial is not possible, because the former rules could not return after a restart: %w", err)
		}
	}
	wereUnconfirmed := r.areUnconfirmed()
	if err := os.WriteFile(r.unconfirmed, nil, 0o600); err != nil {
		return 0, "", fmt.Errorf("recording that the new rules are on trial: %w", err)
	}
	if err := r.wall.Try(loaded.Config, confirm); err != nil {
		if !wereUnconfirmed {
			err = errors.Join(err, r.confirmed())
		}
		return 0, "", err
	}
	r.mu.Lock()
	r.onTrial = loaded
	r.mu.Unlock()
	return len(loaded.Config.Doors), text.String(), nil
}

// confirm puts the rules that are on trial in force for good.
func (r *rules) confirm() error {
	r.changing.Lock()
	defer r.changing.Unlock()
	if err := r.wall.Confirm(); err != nil {
		return err
	}
	r.mu.Lock()
	onTrial := r.onTrial
	r.mu.Unlock()
	if onTrial != nil {
		r.nowInForce(onTrial)
	}
	if err := r.keep(); err != nil {
		return fmt.Errorf("the rules are confirmed, but a restart may use other rules: %w", err)
	}
	return r.confirmed()
}

// confirmed records that the rule files in force are confirmed.
func (r *rules) confirmed() error {
	if err := os.Remove(r.unconfirmed); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the rules are in force, but a restart would use the former ones: %w", err)
	}
	return nil
}

// examine reports whether the rule files differ from those in force, and returns the
// findings about them.
func (r *rules) examine() (differ bool, findings []doctor.Finding) {
	r.mu.Lock()
	now, degraded := r.inForce, r.degraded
	onTrial := r.onTrial
	r.mu.Unlock()
	if onTrial != nil && r.wall.OnTrial() {
		now = onTrial
	}
	if degraded != "" && now != onTrial {
		findings = append(findings, doctor.Finding{Check: "rules", Severity: doctor.Error,
			Problem: fmt.Sprintf("The rule files could not be used when the daemon started, so the last rules that were in force are in force: %s.", degraded),
			Cure:    "Correct the errors that `knockwall check` shows, then type `knockwall reload`."})
	}
	differ, err := now.Differs()
	if err != nil {
		findings = append(findings, doctor.Finding{Check: "rules", Severity: doctor.Warning,
			Problem: fmt.Sprintf("The daemon cannot read its rule files: %v.", err),
			Cure:    "Let the daemon's user read them, as `knockwall check` says. Otherwise the next start uses the kept rules."})
	}
	return differ, findings
}
