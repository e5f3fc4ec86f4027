package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// rules are what a daemon has in force, and where it comes from.
//
// Rules on trial come into force for good only when somebody says so. So the
// former ones are kept in a folder of their own until then: a daemon that is
// killed during the trial, or restarted after it, goes on with these, and not with
// what nobody has confirmed.
type rules struct {
	wall    *wall.Wall
	service *systemd.Service
	memory  memory
	path    string // of the rule files
	kept    string // of the folder with the former ones, where rules were not confirmed

	mu      sync.Mutex // what was read last is in force in the end
	inForce *ruleset.Loaded
	former  bool // they are not those of the rule files
	onTrial *ruleset.Loaded
}

// keptSuffix makes the name of the folder from that of the control socket, which
// is the daemon's own. Both are gone when the machine is started again.
const keptSuffix = ".former-rules"

// pathFile is in that folder, and says of which rule files these are the former.
const pathFile = "path"

func absolute(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

// start returns the rules to begin with: those of the rule files, or, if these were
// on trial before and not confirmed, the former ones, and says so. A wall on trial
// begins with the rule files, as they are what is to be tried.
func (r *rules) start(said io.Writer, onTrial bool) (*ruleset.Config, error) {
	if !onTrial && r.areKept() {
		former := ruleset.Load(r.kept)
		if former.Config == nil {
			return nil, usage("the rules of %s were on trial and not confirmed, and those from before, in %s, cannot be read: "+
				"remove that folder to begin with the new ones", r.path, r.kept)
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
	if loaded.Config == nil {
		return nil, &usageError{errSaid}
	}
	r.inForce = loaded
	return loaded.Config, nil
}

// areKept reports whether former rules of these rule files are kept, by this user
// and nobody else.
func (r *rules) areKept() bool {
	info, err := os.Lstat(r.kept)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
		return false
	}
	path, err := os.ReadFile(filepath.Join(r.kept, pathFile))
	return err == nil && string(path) == absolute(r.path)
}

// reload reads the rule files again, and puts them in force, or on trial.
func (r *rules) reload(confirm time.Duration) (doors int, warnings string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
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
	_, here := onReading(loaded.Config, r.path)
	if err := here.WriteText(&text, otherwiseWide, false); err != nil {
		return 0, "", err
	}
	if err := r.memory.open(loaded.Config); err != nil {
		return 0, "", fmt.Errorf("the new rules need a memory that lasts: %w", err)
	}
	if confirm == 0 {
		if err := r.wall.Raise(loaded.Config); err != nil {
			return 0, "", err
		}
		r.inForce, r.former = loaded, false
		return len(loaded.Config.Doors), text.String(), r.forget()
	}
	if r.wall.OnTrial() {
		return 0, "", wall.ErrOnTrial // and what is kept is from before that
	}
	wereKept := r.areKept()
	err = r.inForce.Save(r.kept)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.kept, pathFile), []byte(absolute(r.path)), 0o600)
	}
	if err != nil {
		return 0, "", fmt.Errorf("keeping the former rules, which return if the new ones are not confirmed: %w", err)
	}
	if err := r.wall.Try(loaded.Config, confirm); err != nil {
		if !wereKept {
			err = errors.Join(err, r.forget())
		}
		return 0, "", err
	}
	r.onTrial = loaded
	return len(loaded.Config.Doors), text.String(), nil
}

// confirm keeps the rules that are on trial.
func (r *rules) confirm() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.wall.Confirm(); err != nil {
		return err
	}
	if r.onTrial != nil {
		r.inForce, r.onTrial, r.former = r.onTrial, nil, false
	}
	if r.former {
		return nil // they are in force, and the rule files are not confirmed yet
	}
	return r.forget()
}

// forget removes the former rules, as those in force are wanted.
func (r *rules) forget() error {
	if err := os.RemoveAll(r.kept); err != nil {
		return fmt.Errorf("the rules are in force, but the former ones, which a restart would take, cannot be removed: %w", err)
	}
	return nil
}
