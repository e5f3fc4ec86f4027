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

// rules are what a daemon has in force, and where it comes from.
//
// The last rules that were in force for good are kept in a folder beside what else the
// daemon remembers. It begins with these when the rule files cannot be used, so that no
// host is bare because of a typing mistake; and when the rule files were on trial and
// nobody has confirmed them, as a daemon that is killed during a trial, or restarted
// after it, is not to go on with what may have locked somebody out. That the files are
// unconfirmed is a file beside the control socket, gone when the machine is started
// again.
type rules struct {
	wall        *wall.Wall
	service     *systemd.Service
	memory      memory
	path        string // of the rule files
	kept        string // of the folder with the last rules in force
	unconfirmed string // of the file that is there while the rule files are not confirmed

	changing sync.Mutex // one reload at a time, which may wait for a disk
	unkept   error      // why what is in force is not kept, if so

	mu       sync.Mutex      // never held while waiting
	inForce  *ruleset.Loaded // in the end
	former   bool            // they are not those of the rule files
	onTrial  *ruleset.Loaded
	degraded string // what is wrong with the rule files, so that these are the kept ones
}

// newRules returns the rules of the files at path, for a daemon that listens at
// controlPath.
func newRules(path, controlPath string) *rules {
	return &rules{path: path, kept: stateBase(controlPath) + "rules", unconfirmed: controlPath + ".unconfirmed"}
}

// start returns the rules to begin with, and says so if they are not those of the rule
// files. A wall on trial begins with the rule files, as they are what is to be tried.
func (r *rules) start(said io.Writer, onTrial bool) (*ruleset.Config, error) {
	if !onTrial && r.areUnconfirmed() {
		former, err := ruleset.Recall(r.kept, r.path)
		if err == nil && former.Config == nil {
			err = errors.New(firstError(former))
		}
		if err != nil {
			return nil, usage("the rules of %s were on trial and not confirmed, and those from before cannot be read: %w. "+
				"Remove %s to begin with the new ones", r.path, err, r.unconfirmed)
		}
		fmt.Fprintf(systemd.At(said, systemd.Warning), "The rules of %s were on trial and not confirmed: those from before are in\n"+
			"force. `knockwall reload` puts the new ones in force.\n", r.path)
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
		err = fmt.Errorf("those that were in force last, in %s, cannot be used either: %s", r.kept, firstError(kept))
	}
	if errors.Is(err, ruleset.ErrNoneKept) {
		return nil, &usageError{errSaid}
	}
	if err != nil {
		return nil, &usageError{err}
	}
	fmt.Fprintf(systemd.At(said, systemd.Error), "knockwall: the rule files cannot be used, so that the last rules that were in force are in force.\n"+
		"Correct what is said above, then type `knockwall reload`.\n")
	if err := writeDiagnostics(systemd.At(said, systemd.Warning), kept); err != nil {
		return nil, err
	}
	r.inForce, r.former, r.degraded = kept, true, firstError(loaded)
	return kept.Config, nil
}

// firstError returns the first thing that is wrong with rule files, in a line.
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

// areUnconfirmed reports whether these rule files were on trial, by this user's daemon,
// and not confirmed.
func (r *rules) areUnconfirmed() bool {
	info, err := os.Lstat(r.unconfirmed)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Geteuid()
}

// keep keeps what is in force for good. It is called with changing held.
func (r *rules) keep() error {
	r.mu.Lock()
	inForce, kept := r.inForce, r.former
	r.mu.Unlock()
	if kept {
		return nil // they are those
	}
	if r.unkept = inForce.Save(r.kept); r.unkept != nil {
		r.unkept = fmt.Errorf("the rules in force cannot be kept for a start at which the rule files cannot be used: %w", r.unkept)
	}
	return r.unkept
}

// keepFirst keeps the rules that the daemon has begun with. It does not wait long for a
// disk that hangs.
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

// diskPatience is how long a start waits for the disk to take the rules.
const diskPatience = 2 * time.Second

// mindInterval is how often it is looked whether what was missing is there.
const mindInterval = 5 * time.Second

// mind does by itself what needs nobody's word: it keeps the rules in force when that
// was not possible before, and puts those of the rule files in force, which are the same,
// when all that they name can be read again.
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
			fmt.Fprintf(said, "knockwall: the rule files can be used again, and are in force.\n")
		}
	}
}

// recover puts the rule files in force again if nothing but what they name was wrong.
// Where their text is another, that is for somebody to say. It is called with changing
// held.
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
	_ = r.keep() // tried again
	return true
}

// nowInForce takes note that rule files are in force for good.
func (r *rules) nowInForce(l *ruleset.Loaded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inForce, r.former, r.onTrial, r.degraded = l, false, nil, ""
}

// reload reads the rule files again, and puts them in force, or on trial.
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
		return 0, "", fmt.Errorf("the new rules need a memory that lasts: %w", err)
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
		return 0, "", wall.ErrOnTrial // and what is kept is from before that
	}
	if r.unkept != nil {
		if err := r.keep(); err != nil {
			return 0, "", fmt.Errorf("no trial, as the former rules would have to return: %w", err)
		}
	}
	wereUnconfirmed := r.areUnconfirmed()
	if err := os.WriteFile(r.unconfirmed, nil, 0o600); err != nil {
		return 0, "", fmt.Errorf("taking note that the new rules are on trial: %w", err)
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

// confirm keeps the rules that are on trial.
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
		return fmt.Errorf("the rules are confirmed, but a restart may take others: %w", err)
	}
	return r.confirmed()
}

// confirmed takes note that the rule files in force are wanted.
func (r *rules) confirmed() error {
	if err := os.Remove(r.unconfirmed); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the rules are in force, but a restart would take the former ones: %w", err)
	}
	return nil
}

// examine reports whether the rule files are others than those in force, and what of
// them degrades the wall.
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
			Problem: fmt.Sprintf("The rule files could not be used when the daemon started, so that the last rules that were in force are in force: %s.", degraded),
			Cure:    "Correct what `knockwall check` says, then type `knockwall reload`."})
	}
	differ, err := now.Differs()
	if err != nil {
		findings = append(findings, doctor.Finding{Check: "rules", Severity: doctor.Warning,
			Problem: fmt.Sprintf("The daemon cannot read its rule files: %v.", err),
			Cure:    "Let its user read them, as `knockwall check` says: else the next start has to take the rules that are kept."})
	}
	return differ, findings
}
