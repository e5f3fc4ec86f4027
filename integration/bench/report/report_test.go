package report_test

import (
	"math"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// made is an invented report: a row of each kind, missing systems, goals met and missed, and
// texts that are too long or contain XML.
func made() *report.Report {
	all := func(system string, done int, note string) report.Cell {
		return report.Cell{System: system, Done: done, Of: 200, Note: note}
	}
	return &report.Report{
		Commit: "0a1b2c3",
		Began:  time.Date(2026, 2, 3, 14, 5, 6, 0, time.UTC),
		Took:   372.4,
		Machine: report.Machine{
			CPU: "Some CPU <8> @ 2.40GHz", Cores: 4, MemoryMiB: 7936,
			Kernel: "6.1.0-28-amd64", System: "Debian GNU/Linux 12 (bookworm)", Go: "go1.26.8", Load: 0.07,
			Programs: map[string]string{"knockd": "0.8", "fwknop": "2.6.10", "nft": "1.0.6", "gcc": "12.2.0"},
		},
		Rows: []report.Row{
			{
				ID: "last-knock", Title: "last knock to first SYN let in", Unit: "ms",
				Cells: []report.Cell{
					{System: "knockwall", N: 1000, Median: 0.314, P95: 0.482, P99: 0.911},
					{System: "knockd", N: 200, Median: 43.96, P95: 71.2, P99: 88},
					{System: "fwknopd", N: 200, Median: 1004.2, P95: 1031, P99: 1090, Note: "one SPA packet of HMAC and AES; it asks pcap once a second"},
					{System: "nftables", N: 1000, Median: 0.1, P95: 0.2, P99: 0.25, Note: "no daemon: a set that rules fill"},
				},
				Goals: []report.Goal{
					{Text: "at most 1/60 of knockd's", Against: "knockd", AtMost: 1.0 / 60},
					{Text: "at most 3× nftables'", Against: "nftables", AtMost: 3},
					{Text: "at most 1 ms", AtMost: 1},
				},
			},
			{
				ID: "back-to-back", Title: "last knock and SYN without a pause: first SYN let in",
				Cells: []report.Cell{all("knockwall", 200, ""), all("knockd", 0, ""), all("fwknopd", 13, ""), {System: "nftables", Note: "nft is not installed"}},
				Goals: []report.Goal{{Text: "all clients are let in"}},
			},
			{
				ID: "connect", Title: "TCP connect to an open door", Unit: "µs",
				Cells: []report.Cell{
					{System: "no wall", N: 5000, Median: 31.2, P95: 44, P99: 61},
					{System: "knockwall", N: 5000, Median: 58.1, P95: 80.9, P99: 145},
					{System: "queue C", N: 5000, Median: 52.9, P95: 76, P99: 99},
					{System: "queue go-nfqueue", N: 5000, Median: 74, P95: 130, P99: 1210},
				},
				Goals: []report.Goal{{Text: "at most 1.05 of queue C's", Against: "queue C", AtMost: 1.05}},
			},
			{
				ID: "flood-20k", Title: "let in while strangers send 20,000 SYNs a second & more",
				Cells: []report.Cell{all("knockwall", 199, "20,000/s sent"), all("knockd", 121, "19,998/s sent"), all("fwknopd", 200, "20,000/s sent; of which garbage that looks like an SPA packet and has to be decrypted: 1,000/s")},
				Goals: []report.Goal{{Text: "all clients are let in"}},
			},
			{
				ID: "cpu", Title: "CPU for 100,000 first knocks", Unit: "s",
				Cells: []report.Cell{
					{System: "knockwall", N: 5, Median: 0.21, P95: 0.22, P99: 0.22},
					{System: "knockd", N: 5, Median: 1234.5, P95: 1240, P99: 1240},
				},
				Goals: []report.Goal{{Text: "at most half of fwknopd's, where fwknopd is told to take every packet of the flood for an SPA", Against: "fwknopd", AtMost: 0.5}},
			},
			{
				ID: "memory", Title: "resident after 1,000,000 sources knocked once", Unit: "MiB",
				Cells: []report.Cell{
					{System: "knockd", N: 1, Median: 611, P95: 611, P99: 611},
					{System: "fwknopd", Note: "killed for want of memory"},
				},
				Goals: []report.Goal{{Text: "at most 100 MiB", AtMost: 100}},
			},
			{ID: "flood-door", Title: "let in while the door's own port is flooded, with all of it on one line of a title that is too long", Cells: []report.Cell{all("knockwall", 200, "")}},
		},
	}
}

func TestRatio(t *testing.T) {
	row := report.Row{Cells: []report.Cell{{System: "knockwall", Median: 2}, {System: "knockd", Median: 300}, {System: "nftables"}}}
	for i, want := range []float64{1, 150, 0} {
		if got := row.Ratio(row.Cells[i]); got != want {
			t.Errorf("%s: %v, not %v", row.Cells[i].System, got, want)
		}
	}
	if got := (report.Row{}).Ratio(row.Cells[1]); got != 0 {
		t.Errorf("with no knockwall: %v", got)
	}
}

func TestMet(t *testing.T) {
	cells := []report.Cell{
		{System: "knockwall", Median: 2, Done: 50, Of: 50},
		{System: "knockd", Median: 100},
		{System: "fwknopd", Note: "not installed"},
	}
	without := cells[1:]
	partly := []report.Cell{{System: "knockwall", Median: 2, Done: 49, Of: 50}}
	for _, tt := range []struct {
		name  string
		cells []report.Cell
		goal  report.Goal
		got   float64
		met   bool
		ok    bool
	}{
		{"ratio kept", cells, report.Goal{Against: "knockd", AtMost: 1.0 / 40}, 0.02, true, true},
		{"ratio just kept", cells, report.Goal{Against: "knockd", AtMost: 0.02}, 0.02, true, true},
		{"ratio missed", cells, report.Goal{Against: "knockd", AtMost: 1.0 / 60}, 0.02, false, true},
		{"ratio to what was not measured", cells, report.Goal{Against: "fwknopd", AtMost: 1}, 0, false, false},
		{"ratio to what is not there", cells, report.Goal{Against: "nftables", AtMost: 1}, 0, false, false},
		{"ratio without knockwall", without, report.Goal{Against: "knockd", AtMost: 1}, 0, false, false},
		{"own kept", cells, report.Goal{AtMost: 3}, 2, true, true},
		{"own missed", cells, report.Goal{AtMost: 1.5}, 2, false, true},
		{"own without knockwall", without, report.Goal{AtMost: 3}, 0, false, false},
		{"all let in", cells, report.Goal{}, 1, true, true},
		{"not all let in", partly, report.Goal{}, 0.98, false, true},
		{"nobody counted", []report.Cell{{System: "knockwall", Median: 2}}, report.Goal{}, 0, false, false},
		{"let in without knockwall", without, report.Goal{}, 0, false, false},
	} {
		got, met, ok := report.Row{Cells: tt.cells}.Met(tt.goal)
		if math.Abs(got-tt.got) > 1e-9 || met != tt.met || ok != tt.ok {
			t.Errorf("%s: %v %v %v, not %v %v %v", tt.name, got, met, ok, tt.got, tt.met, tt.ok)
		}
	}
}
