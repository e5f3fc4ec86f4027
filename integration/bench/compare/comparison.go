package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// verdict says how a figure has changed.
type verdict string

const (
	same   verdict = "" // or a change within noise
	better verdict = "better"
	worse  verdict = "WORSE"
	// The table does not have the figure.
	added verdict = "new"
	// Another system that the figure needs is missing or has failed. This says nothing
	// about knockwall.
	absent verdict = "not measured"
	// The figure needs only knockwall, so this counts as worse. If a benchmark was removed
	// on purpose, the next --update removes it from the table.
	gone verdict = "MISSING"
)

// judge compares a figure with the former figure of the same name and unit.
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

// change returns the difference between two figures, or "" if there is none. For shares it is
// in percentage points.
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

// writeComparison writes each figure then and now, in the order of the table, and reports
// whether any is worse. It returns an error if no figure is in both tables.
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
	w.Flush() // to a Buffer, which never fails
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
