package ruleset

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// maxWalls is the maximum number of wall blocks: one in each rule file.
const maxWalls = maxFiles

// wallSettings are the attributes of wall blocks that have one value in all of them.
var wallSettings = []struct {
	name string
	in   func(*rawWall) hcl.Expression
	// of returns the value, to be compared.
	of func(*Loaded, *Wall) any
}{
	{"table", func(r *rawWall) hcl.Expression { return r.Table }, func(_ *Loaded, w *Wall) any { return w.Table }},
	{"nflog_group", func(r *rawWall) hcl.Expression { return r.LogGroup }, func(_ *Loaded, w *Wall) any { return w.LogGroup }},
	{"queue", func(r *rawWall) hcl.Expression { return r.Queue }, func(_ *Loaded, w *Wall) any { return w.Queue }},
	{"interfaces", func(r *rawWall) hcl.Expression { return r.Interfaces }, func(_ *Loaded, w *Wall) any { return strings.Join(w.Interfaces, " ") }},
	{"on_stop", func(r *rawWall) hcl.Expression { return r.OnStop }, func(_ *Loaded, w *Wall) any { return w.OnStop }},
	{"hold", func(r *rawWall) hcl.Expression { return r.Hold }, func(_ *Loaded, w *Wall) any { return w.Hold }},
	{"reorder", func(r *rawWall) hcl.Expression { return r.Reorder }, func(_ *Loaded, w *Wall) any { return w.Reorder }},
	{"max_sources", func(r *rawWall) hcl.Expression { return r.MaxSources }, func(_ *Loaded, w *Wall) any { return w.MaxSources }},
	{"max_windows", func(r *rawWall) hcl.Expression { return r.MaxWindows }, func(_ *Loaded, w *Wall) any { return w.MaxWindows }},
	{"identity", func(r *rawWall) hcl.Expression { return r.Identity }, func(l *Loaded, w *Wall) any {
		return w.IdentityPath + "\x00" + string(l.identity.secret.Key())
	}},
}

// checkWalls reads all wall blocks as one. Trusted sources add up. It reports an error if
// two blocks have another value for anything else.
func (l *Loaded) checkWalls(all []rawWall, w *Wall) {
	if len(all) > maxWalls {
		l.fail("Too many wall blocks", fmt.Sprintf("The rule files have %d wall blocks. At most %d are allowed.", len(all), maxWalls), &all[maxWalls].Range)
		return
	}
	first := map[string]hcl.Range{}
	for i := range all {
		r := &all[i]
		before := make([]any, len(wallSettings))
		for i, s := range wallSettings {
			before[i] = s.of(l, w)
		}
		l.checkWall(r, w)
		for i, s := range wallSettings {
			e := s.in(r)
			if absent(e) {
				continue
			}
			if at, twice := first[s.name]; !twice {
				first[s.name] = e.Range()
			} else if s.of(l, w) != before[i] {
				l.failAt(e, "Wall blocks that disagree", fmt.Sprintf("Another value of %s is at %s. Keep one of them.", s.name, fileLine(at)))
			}
		}
	}
}

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)

// checkWall reads a wall block into w, which may have values of other blocks.
func (l *Loaded) checkWall(r *rawWall, w *Wall) {
	l.text(r.Table, &w.Table)
	if !absent(r.Table) && !tableName.MatchString(w.Table) {
		l.failAt(r.Table, "Not a table name", "A table name is a letter or underscore, then up to 31 letters, digits and underscores.")
	}
	number(l, r.LogGroup, &w.LogGroup, 1, 65534, "An NFLOG group is a whole number from %d to %d. The daemon uses it and the next one.")
	number(l, r.Queue, &w.Queue, 0, 65530, "A queue is a whole number from %d to %d. The daemon uses it and the next five.")
	if !absent(r.Interfaces) {
		w.Interfaces = l.interfaces(r.Interfaces)
	}
	w.Trusted = distinct(slices.Concat(w.Trusted, l.addresses(r.Trusted, "")))
	choose(l, r.OnStop, &w.OnStop, Keep, Remove)
	l.duration(r.Hold, &w.Hold, 0, 2*time.Second)
	l.duration(r.Reorder, &w.Reorder, 0, time.Second)
	l.identity.read(l, r.Identity, w)
	number(l, r.MaxSources, &w.MaxSources, 16, 1<<22, "The number of sources that are tracked at once is a whole number from %d to %d.")
	number(l, r.MaxWindows, &w.MaxWindows, 16, 1<<20, "The number of windows that a door can have open is a whole number from %d to %d.")
}
