package packet

import "slices"

// Ranges returns a range for each port.
func Ranges(ports []Port) []PortRange {
	var ranges []PortRange
	for _, p := range ports {
		ranges = append(ranges, PortRange{First: p.Number, Last: p.Number, Protocol: p.Protocol})
	}
	return ranges
}

// InRanges reports whether a port is in one of several ranges.
func InRanges(p Port, ranges []PortRange) bool {
	for _, r := range ranges {
		if r.Contains(p) {
			return true
		}
	}
	return false
}

// MergeRanges sorts ranges in place, and returns them with those joined that overlap or
// touch.
func MergeRanges(ports []PortRange) []PortRange {
	slices.SortFunc(ports, func(a, b PortRange) int {
		if a.Protocol != b.Protocol {
			return int(a.Protocol) - int(b.Protocol)
		}
		return int(a.First) - int(b.First)
	})
	var merged []PortRange
	for _, r := range ports {
		if n := len(merged); n > 0 && merged[n-1].Protocol == r.Protocol && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}
