//go:build linux

package daemon

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/doctor"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// reload reads the rule files again, and puts them in force, or on trial if confirm is
// not 0. If the files have errors, it returns a [*control.RulesError].
func (r *rules) reload(confirm time.Duration) (done control.Reloaded, err error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	defer startLargeWork()()
	r.service.Reloading()
	defer r.service.Ready()
	loaded, warnings, err := r.read()
	switch {
	case err != nil:
	case confirm != 0:
		err = r.try(loaded, confirm)
	default:
		err = r.wall.Apply(loaded.Config)
	}
	if err != nil {
		r.reloadFailed()
		return done, err
	}
	done = control.Reloaded{
		Doors: len(loaded.Config.Doors), Warnings: warnings,
		Changes: loaded.Config.Changes(r.inForce.Config), // in force for good until now
	}
	if confirm != 0 {
		done.Next = &control.Next{Restart: control.Former, Boot: r.afterBoot()}
		return done, nil
	}
	r.nowInForce(loaded)
	if err := r.keep(); err != nil {
		done.Warnings += fmt.Sprintf("Warning: %v\n", err)
	}
	return done, r.markConfirmed()
}

// read reads the rule files, examines what they mean on this host, and opens the stores
// that they need.
func (r *rules) read() (loaded *ruleset.Loaded, warnings string, err error) {
	loaded = ruleset.Load(r.path)
	var text strings.Builder
	if err := loaded.WriteText(&text, terminal.DefaultWidth, false); err != nil {
		return nil, "", err
	}
	if loaded.Config == nil {
		return nil, "", &control.RulesError{Diagnostics: text.String()}
	}
	here := doctor.Examine(&doctor.Host{Config: loaded.Config}, doctor.Reading).Warnings()
	if err := here.WriteText(&text, terminal.DefaultWidth, false); err != nil {
		return nil, "", err
	}
	if err := r.stores.open(loaded.Config); err != nil {
		return nil, "", fmt.Errorf("the new rules need a file that remembers what was used and which commands are due: %w", err)
	}
	return loaded, text.String(), nil
}

// try puts rule files on trial. A daemon that restarts before they are confirmed uses the
// former rules, which must have been kept for that. It is called with changing held.
func (r *rules) try(loaded *ruleset.Loaded, confirm time.Duration) error {
	if r.wall.OnTrial() {
		return wall.ErrOnTrial // the kept rules are those from before that trial
	}
	if r.unkept != nil {
		if err := r.keep(); err != nil {
			return fmt.Errorf("a trial is not possible, because the former rules could not return after a restart: %w", err)
		}
	}
	wereUnconfirmed := r.areUnconfirmed()
	if err := r.markUnconfirmed(); err != nil {
		return err
	}
	if err := r.wall.Try(loaded.Config, confirm); err != nil {
		if !wereUnconfirmed {
			err = errors.Join(err, r.markConfirmed())
		}
		return err
	}
	r.nowOnTrial(loaded)
	return nil
}

// afterBoot returns which rules a boot puts in force while the rule files are unconfirmed.
// The mark that says so is usually in a file system that a boot empties.
func (r *rules) afterBoot() control.Rules {
	var in unix.Statfs_t
	switch err := unix.Statfs(filepath.Dir(r.unconfirmed), &in); {
	case !systemd.Supervised():
		return control.None
	case err == nil && in.Type == unix.TMPFS_MAGIC:
		return control.Files
	default:
		return control.Former
	}
}

// confirm puts the rules that are on trial in force for good.
func (r *rules) confirm() (done control.Confirmed, err error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if err := r.wall.Confirm(); err != nil {
		return done, err
	}
	r.mu.Lock()
	onTrial := r.onTrial
	r.mu.Unlock()
	if onTrial != nil {
		r.nowInForce(onTrial)
	}
	if err = r.keep(); err != nil {
		err = fmt.Errorf("the rules are confirmed, but a restart may use other rules: %w", err)
	}
	// Without the mark a restart reads the rule files, as they are then.
	err = errors.Join(err, r.markConfirmed())
	done.Next = control.Next{Restart: control.Files, Boot: control.Files}
	if !systemd.Supervised() {
		done.Next.Boot = control.None
	}
	differ, _ := r.inForce.Differs() // an unreadable file differs, and the status says why
	done.FilesDiffer = differ
	return done, err
}
