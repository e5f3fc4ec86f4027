//go:build linux

package nft

import (
	"fmt"
	"strings"
	"time"
)

// This file writes a table as text.

// String returns the table as nft lists it, with a comment at each chain.
func (t *Table) String() string {
	var blocks []string
	all := t.contents()
	for _, name := range all.counters {
		blocks = append(blocks, fmt.Sprintf("\tcounter %s {\n\t\tpackets 0 bytes 0\n\t}\n", name))
	}
	for _, o := range all.timeouts {
		blocks = append(blocks, o.String())
	}
	for _, s := range all.sets {
		blocks = append(blocks, s.String())
	}
	for _, c := range all.chains {
		var b strings.Builder
		fmt.Fprintf(&b, "\t# %s\n\tchain %s {\n", c.about, c.name)
		if h, ok := hookOf(c.name); ok {
			fmt.Fprintf(&b, "\t\ttype filter hook %s; policy accept;\n", h.text)
		}
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
		blocks = append(blocks, b.String())
	}
	return fmt.Sprintf("table inet %s {\n%s}\n", t.Name, strings.Join(blocks, "\n"))
}

// Script returns the table as an nft script that replaces the existing one, if any, in
// one transaction.
func (t *Table) Script() string {
	return fmt.Sprintf("table inet %[1]s\ndelete table inet %[1]s\n%[2]s", t.Name, t)
}

func (s set) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.name, s.kind.Name)
	if s.size > 0 {
		fmt.Fprintf(&b, "\t\tsize %d\n", s.size)
	}
	switch {
	case s.dynamic:
		b.WriteString("\t\tflags dynamic,timeout\n")
	case !s.constant:
		b.WriteString("\t\tflags timeout\n")
	}
	if s.timeout > 0 {
		fmt.Fprintf(&b, "\t\ttimeout %s\n", nftDuration(s.timeout))
	}
	if len(s.elements) > 0 {
		var words []string
		for _, e := range s.elements {
			words = append(words, e.text)
		}
		fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(words, ",\n\t\t\t     "))
	}
	b.WriteString("\t}\n")
	return b.String()
}

// nftDuration returns a duration as nft writes it: 1h2m3s4ms, without parts that are
// zero.
func nftDuration(d time.Duration) string {
	var b strings.Builder
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / unit.length; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d -= n * unit.length
		}
	}
	return b.String()
}
