//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/terminal"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/systemd"
)

// RulesError says that there are no rules to start with.
type RulesError struct {
	err error // nil: the errors in the rule files are written already
}

func (e *RulesError) Error() string {
	if e.err == nil {
		return "the rule files cannot be used"
	}
	return e.err.Error()
}

func (e *RulesError) Unwrap() error { return e.err }

// start returns the rules to start with, and writes a message if they are not those of
// the rule files. A wall on trial starts with the rule files, because they are what is
// tried. If there are no rules to start with, the error is a [*RulesError].
func (r *rules) start(stderr io.Writer, onTrial bool) (*ruleset.Config, error) {
	if !onTrial && r.areUnconfirmed() {
		return r.startFormer(stderr)
	}
	loaded := ruleset.Load(r.path)
	level := systemd.Warning
	if loaded.Config == nil {
		level = systemd.Error
	}
	if err := terminal.WriteDiagnostics(systemd.At(stderr, level), loaded); err != nil {
		return nil, err
	}
	if loaded.Config != nil {
		r.inForce, r.usedAt = loaded, time.Now()
		return loaded.Config, nil
	}
	if onTrial {
		return nil, &RulesError{}
	}
	return r.startDegraded(stderr, firstError(loaded))
}

// startFormer starts with the rules from before a trial that was not confirmed.
func (r *rules) startFormer(stderr io.Writer) (*ruleset.Config, error) {
	former, err := ruleset.Recall(r.kept, r.path)
	if err == nil && former.Config == nil {
		err = errors.New(firstError(former))
	}
	if err != nil {
		return nil, &RulesError{fmt.Errorf("the rules of %s were on trial and not confirmed, and the former ones cannot be read: %w. "+
			"Remove %s to start with the new ones", r.path, err, r.unconfirmed)}
	}
	fmt.Fprintf(systemd.At(stderr, systemd.Warning), "The rules of %s were on trial and not confirmed: the former ones are in\n"+
		"force. Type `%s` to put the new ones in force.\n", r.path, control.Command(r.control, "reload"))
	r.inForce, r.former, r.failed = former, true, true
	return former.Config, nil
}

// startDegraded starts with the last rules that were in force, because of an error in the
// rule files.
func (r *rules) startDegraded(stderr io.Writer, because string) (*ruleset.Config, error) {
	kept, err := ruleset.Recall(r.kept, r.path)
	if err == nil && kept.Config == nil {
		err = fmt.Errorf("the rules that were in force last, in %s, cannot be used either: %s", r.kept, firstError(kept))
	}
	if errors.Is(err, ruleset.ErrNoneKept) {
		return nil, &RulesError{}
	}
	if err != nil {
		return nil, &RulesError{err}
	}
	fmt.Fprintf(systemd.At(stderr, systemd.Error), "knockwall: the rule files cannot be used: the last rules that were in force are in force.\n"+
		"Correct the errors above, then type `%s`.\n", control.Command(r.control, "reload"))
	if err := terminal.WriteDiagnostics(systemd.At(stderr, systemd.Warning), kept); err != nil {
		return nil, err
	}
	r.inForce, r.former, r.degraded, r.failed = kept, true, because, true
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

// diskTimeout is how long the start waits for the disk to take the rules.
const diskTimeout = 2 * time.Second

// keepFirst saves the rules that the daemon has started with. A disk that hangs does not
// keep the daemon from becoming ready.
func (r *rules) keepFirst(stderr io.Writer) {
	ctx, cancel := context.WithTimeout(context.Background(), diskTimeout)
	defer cancel()
	until(ctx, func() {
		r.changing.Lock()
		defer r.changing.Unlock()
		if err := r.keep(); err != nil {
			fmt.Fprintf(systemd.At(stderr, systemd.Warning), "knockwall: %v\n", err)
		}
	})
}
