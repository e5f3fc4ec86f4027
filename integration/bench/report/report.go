// Package report holds the results of a run of integration/bench. It writes them as text, as
// JSON and as a plot, and reads the JSON. It measures nothing itself, so it can be tested
// without a kernel.
package report

import "time"

// Knockwall is the System of the cells with which all others are compared.
const Knockwall = "knockwall"

// Report has the results of one run.
type Report struct {
	Commit  string    `json:"commit"` // of knockwall, from `git describe --always --dirty`, or "unknown"
	Began   time.Time `json:"began"`
	Took    Seconds   `json:"took_seconds"`
	Quick   bool      `json:"quick"` // fewer samples: good for ratios, not for publication
	Machine Machine   `json:"machine"`
	Rows    []Row     `json:"rows"`
}

// Seconds is a duration in seconds, as in the JSON.
type Seconds float64

// Machine describes the machine of the run.
type Machine struct {
	CPU       string            `json:"cpu"`
	Cores     int               `json:"cores"`
	MemoryMiB int               `json:"memory_mib"`
	Kernel    string            `json:"kernel"`
	System    string            `json:"system"` // "Debian GNU/Linux 12 (bookworm)"
	Go        string            `json:"go"`
	Load      float64           `json:"load"`     // load average of the minute before the run
	Programs  map[string]string `json:"programs"` // their versions: knockd, fwknop, nft, gcc
}

// Row is one kind of work that several systems did in the same run, in turns.
type Row struct {
	ID    string `json:"id"`    // "last-knock"
	Title string `json:"title"` // "last knock to first SYN let in"
	Unit  string `json:"unit"`  // of the cells' medians, less is better: "ms", "MiB"; "" if only Done of Of counts
	Cells []Cell `json:"cells"`
	Goals []Goal `json:"goals"`
}

// Cell is the result of one system. If the system could not do the work, the cell has neither
// a Median nor an Of, and Note says why.
type Cell struct {
	System string  `json:"system"` // "knockwall", "knockd", "no wall"
	N      int     `json:"n"`      // samples
	Median float64 `json:"median"` // in the row's Unit, like P95 and P99; 0 if there is none
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
	Done   int     `json:"done"` // how many of Of clients were let in
	Of     int     `json:"of"`   // 0: not that kind of row
	Note   string  `json:"note"` // "garbage SPA", "412,000/s sent"
}

// Goal is a bound that knockwall should meet.
type Goal struct {
	Text    string  `json:"text"`    // "at most 1/60 of knockd's"
	Against string  `json:"against"` // the other system; "": the bound is on knockwall's own median
	AtMost  float64 `json:"at_most"` // knockwall's median divided by the other's, or knockwall's alone; 0: all clients must be let in
}

// cell returns the cell of a system, or nil.
func (r Row) cell(system string) *Cell {
	for i := range r.Cells {
		if r.Cells[i].System == system {
			return &r.Cells[i]
		}
	}
	return nil
}

// median returns a system's median, or 0 if there is none.
func (r Row) median(system string) float64 {
	if c := r.cell(system); c != nil {
		return c.Median
	}
	return 0
}

// Ratio returns the cell's median divided by knockwall's: above 1, knockwall is better. It is
// 0 if one of them is missing.
func (r Row) Ratio(c Cell) float64 {
	own := r.median(Knockwall)
	if own <= 0 || c.Median <= 0 {
		return 0
	}
	return c.Median / own
}

// Met reports whether knockwall meets the bound, and returns the figure: its median, its
// median divided by the other system's, or the share of clients that were let in. ok is
// false if a needed figure was not measured.
func (r Row) Met(g Goal) (got float64, met, ok bool) {
	if g.AtMost == 0 {
		c := r.cell(Knockwall)
		if c == nil || c.Of == 0 {
			return 0, false, false
		}
		return float64(c.Done) / float64(c.Of), c.Done == c.Of, true
	}
	got = r.median(Knockwall)
	if got <= 0 {
		return 0, false, false
	}
	if g.Against != "" {
		other := r.median(g.Against)
		if other <= 0 {
			return 0, false, false
		}
		got /= other
	}
	return got, got <= g.AtMost, true
}
