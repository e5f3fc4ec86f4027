package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// verdict is what has become of a figure.
type verdict string

const (
	same   verdict = "" // or not told from noise
	better verdict = "better"
	worse  verdict = "WORSE"
	// The table does not have it.
	added verdict = "new"
	// A system that it takes is not there, or has failed. That says nothing about
	// knockwall.
	absent verdict = "not measured"
	// It takes knockwall alone, and so is no less than worse: a benchmark that was
	// taken out on purpose goes with the next --update.
	gone verdict = "MISSING"
)

// judge compares a figure with a former one of its name and unit.
func judge(then, now figure) verdict {
	grown, shrunk := now.value > then.value, now.value < then.value
	switch then.unit {
	case ratio, memory:
		grown, shrunk = now.value > then.value*noise, now.value < then.value/noise
	case letIn:
		grown, shrunk = now.share() < then.share(), now.share() > then.share()
	}
	switch {
	case grown:
		return worse
	case shrunk:
		return better
	}
	return same
}

// change writes what lies between two figures, or "" where nothing does; between
// shares, in points of a hundred.
func change(then, now figure) string {
	switch then.unit {
	case ratio, memory:
		return fmt.Sprintf("%.2f×", now.value/then.value)
	case letIn:
		if points := 100 * (now.share() - then.share()); points != 0 {
			return fmt.Sprintf("%+.3g points", points)
		}
	case allocations:
		if now.value != then.value {
			return fmt.Sprintf("%+.0f", now.value-then.value)
		}
	}
	return ""
}

// writeComparison writes each figure as it was then and is now, in the order of the
// table, and tells whether any is worse. It is an error if there is none in both.
func writeComparison(out io.Writer, then, now table) (anyWorse bool, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "then: %s, %s, %s\nnow:  %s, %s, %s\n\n",
		then.commit, then.date, then.machine, now.commit, now.date, now.machine)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "NAME\tUNIT\tTHEN\tNOW\tCHANGE\t\n")
	type key struct{ name, unit string }
	today := map[key]figure{}
	for _, f := range now.figures {
		today[key{f.name, f.unit}] = f
	}
	count := map[verdict]int{}
	for _, f := range then.figures {
		k := key{f.name, f.unit}
		g, ok := today[k]
		delete(today, k)
		v, is, by := gone, "-", ""
		if ok {
			v, is, by = judge(f, g), g.text(), change(f, g)
		} else if f.needsOthers() {
			v = absent
		}
		count[v]++
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.name, f.unit, f.text(), is, by, v)
	}
	for _, f := range now.figures {
		if _, left := today[key{f.name, f.unit}]; left {
			count[added]++
			fmt.Fprintf(w, "%s\t%s\t-\t%s\t\t%s\n", f.name, f.unit, f.text(), added)
		}
	}
	w.Flush() // to a Buffer, which takes all
	compared := count[same] + count[better] + count[worse]
	fmt.Fprintf(&b, "\n%d compared, of which worse: %d, better: %d; missing: %d, not measured: %d, new: %d.\n",
		compared, count[worse], count[better], count[gone], count[absent], count[added])
	fmt.Fprintf(&b, "Worse is: more allocations, fewer clients let in, or more than %v× the ratio or the memory.\n", noise)
	if _, err := out.Write(b.Bytes()); err != nil {
		return false, fmt.Errorf("writing the comparison: %w", err)
	}
	if compared == 0 {
		return false, errors.New("the table and this run have no figure in common")
	}
	return count[worse]+count[gone] > 0, nil
}
