// Command compare compares a run of the benchmarks with the table of a former run,
// integration/bench/baseline.md, or writes that table. integration/bench/compare.sh measures
// and runs it.
//
// It compares only figures that change little on a noisy or different machine: allocations,
// which are exact; the ratio of knockwall's median to that of another system, which did the
// same work in turns with it; how many clients were let in; and memory. It does not compare
// times, nor the ns/op of benchmarks. Even as a ratio to a calibrating benchmark, ns/op would
// say more about the machine's caches than about knockwall.
//
// It exits with 1 if a figure is worse, and with 2 if it could not compare.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/knockwall/knockwall/integration/bench/report"
)

func main() {
	table := flag.String("table", "integration/bench/baseline.md", "the `file` with the table")
	benchmarks := flag.String("benchmarks", "", "the `file` with what go test -bench -benchmem -cpu 1 has printed")
	quick := flag.String("report", "", "the `file` with what integration/bench --quick --json has written")
	update := flag.String("update", "", "do not compare but write the table anew, as measured on this `commit`")
	flag.Parse()
	if *benchmarks == "" || *quick == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	worse, err := run(*table, *benchmarks, *quick, *update)
	if err != nil {
		fmt.Fprintf(os.Stderr, "compare: %v\n", err)
		os.Exit(2)
	}
	if worse {
		os.Exit(1)
	}
}

// run compares, or updates the table, and reports whether a figure is worse.
func run(path, benchmarks, quick, commit string) (worse bool, err error) {
	now, err := measured(benchmarks, quick)
	if err != nil {
		return false, err
	}
	if commit != "" {
		now.commit = commit
		text, err := now.markdown()
		if err != nil {
			return false, fmt.Errorf("cannot make a table of what was measured: %w", err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return false, err
		}
		fmt.Printf("%s has %d figures of commit %s.\n", path, len(now.figures), commit)
		return false, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	then, err := parseTable(string(text))
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return writeComparison(os.Stdout, then, now)
}

// measured returns the figures of the two files.
func measured(benchmarks, quick string) (table, error) {
	text, err := os.ReadFile(benchmarks)
	if err != nil {
		return table{}, err
	}
	figures, err := fromBenchmarks(string(text))
	if err != nil {
		return table{}, fmt.Errorf("%s: %w", benchmarks, err)
	}
	file, err := os.Open(quick)
	if err != nil {
		return table{}, err
	}
	defer file.Close()
	r, err := report.Read(file)
	if err != nil {
		return table{}, fmt.Errorf("%s: %w", quick, err)
	}
	if !r.Quick {
		return table{}, fmt.Errorf("%s is not of a --quick run: the table has those, and others measure more work", quick)
	}
	m := r.Machine
	return table{
		commit:  r.Commit,
		date:    r.Began.UTC().Format("2006-01-02"),
		machine: fmt.Sprintf("%s, cores: %d, Linux %s, %s", m.CPU, m.Cores, m.Kernel, m.Go),
		figures: append(figures, fromReport(r)...),
	}, nil
}
