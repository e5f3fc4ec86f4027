//go:build linux

package daemon

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/knockwall/knockwall/ruleset"
)

// repairInterval is how often the daemon checks whether what was missing is back.
const repairInterval = 5 * time.Second

// repair repairs what needs no decision, until ctx ends. It saves the rules in force if
// that failed before. It puts the rule files in force again, if they are the same as those
// in force, when all files that they name can be read again.
func (r *rules) repair(ctx context.Context, stderr io.Writer) {
	ticker := time.NewTicker(repairInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !until(ctx, func() { r.repairNow(stderr) }) {
			return
		}
	}
}

func (r *rules) repairNow(stderr io.Writer) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if r.unkept != nil {
		_ = r.keep()
	}
	if r.recover() {
		fmt.Fprintf(stderr, "knockwall: the rule files can be used again and are in force.\n")
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
	if loaded.Config == nil || r.stores.open(loaded.Config) != nil || r.wall.Apply(loaded.Config) != nil {
		return false
	}
	r.nowInForce(loaded)
	_ = r.keep() // repair tries it again
	return true
}
