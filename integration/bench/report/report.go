// Package report is what a run of integration/bench has measured, and how that is
// shown: as text, as JSON that is read back, and as a plot. It measures nothing
// itself, so that all of it is tested without a kernel to measure on.
package report

import "time"

// Knockwall is the System of the cells to which all others are compared.
const Knockwall = "knockwall"

// Report is what one run has measured.
type Report struct {
	Commit  string    `json:"commit"` // of knockwall, as `git describe --always --dirty` has it; or "unknown"
	Began   time.Time `json:"began"`
	Took    Seconds   `json:"took_seconds"`
	Quick   bool      `json:"quick"` // fewer samples: good for ratios, not to be published
	Machine Machine   `json:"machine"`
	Rows    []Row     `json:"rows"`
}

// Seconds is a span of time, in the unit that the JSON has it in.
type Seconds float64

// Machine is where it was measured.
type Machine struct {
	CPU       string            `json:"cpu"`
	Cores     int               `json:"cores"`
	MemoryMiB int               `json:"memory_mib"`
	Kernel    string            `json:"kernel"`
	System    string            `json:"system"` // "Debian GNU/Linux 12 (bookworm)"
	Go        string            `json:"go"`
	Load      float64           `json:"load"`     // average of the minute before the run
	Programs  map[string]string `json:"programs"` // their versions: knockd, fwknop, nft, gcc
}

// Row is one kind of work, that several systems did in the same run, in turns.
type Row struct {
	ID    string `json:"id"`    // "last-knock"
	Title string `json:"title"` // "last knock to first SYN let in"
	Unit  string `json:"unit"`  // of the cells' medians, of which less is better: "ms", "MiB"; "" where only Done of Of counts
	Cells []Cell `json:"cells"`
	Goals []Goal `json:"goals"`
}

// Cell is what one system did. One that could not do it has neither a Median nor an
// Of, and a Note that says why.
type Cell struct {
	System string  `json:"system"` // "knockwall", "knockd", "no wall"
	N      int     `json:"n"`      // samples
	Median float64 `json:"median"` // in the row's Unit, as P95 and P99 are; 0 where there is none
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
	Done   int     `json:"done"` // of Of clients, how many were let in
	Of     int     `json:"of"`   // 0: not that kind of row
	Note   string  `json:"note"` // "garbage SPA", "412,000/s sent"
}

// Goal is a bound that knockwall is to keep.
type Goal struct {
	Text    string  `json:"text"`    // "at most 1/60 of knockd's"
	Against string  `json:"against"` // the other system; "": the bound is on knockwall's own median
	AtMost  float64 `json:"at_most"` // of knockwall's median by the other's, or of knockwall's alone; 0: all clients are to be let in
}

// cell returns what a system did, or nil.
func (r Row) cell(system string) *Cell {
	for i := range r.Cells {
		if r.Cells[i].System == system {
			return &r.Cells[i]
		}
	}
	return nil
}

// median returns a system's median, or 0 where there is none.
func (r Row) median(system string) float64 {
	if c := r.cell(system); c != nil {
		return c.Median
	}
	return 0
}

// Ratio returns the cell's median by knockwall's: above 1, knockwall is the better
// one. It is 0 where one of them is not to be had.
func (r Row) Ratio(c Cell) float64 {
	own := r.median(Knockwall)
	if own <= 0 || c.Median <= 0 {
		return 0
	}
	return c.Median / own
}

// Met tells whether knockwall keeps the bound, and with what figure: its median,
// that by the other system's, or the share of the clients that were let in. It is
// not ok where what it takes to tell was not measured.
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
