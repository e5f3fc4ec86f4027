package hosts

import "strings"

// fits reports whether a name fits a list of patterns, as in Host of ssh_config(5): it fits
// one of them, and none of those that begin with an exclamation mark. Case does not matter.
func fits(name string, patterns []string) bool {
	fit := false
	for _, p := range patterns {
		p, negated := strings.CutPrefix(p, "!")
		if !matches(strings.ToLower(name), strings.ToLower(p)) {
			continue
		}
		if negated {
			return false
		}
		fit = true
	}
	return fit
}

// matches reports whether a name is what a pattern describes: * stands for any number of
// characters, and ? for one.
func matches(name, pattern string) bool {
	// star is the place after the last *, which stands for the characters of the name up to
	// rest. If the rest of the pattern does not match, the * takes one character more.
	star, rest := -1, 0
	i, j := 0, 0
	for i < len(name) {
		switch {
		case j < len(pattern) && pattern[j] == '*':
			star, rest = j+1, i
			j++
		case j < len(pattern) && (pattern[j] == '?' || pattern[j] == name[i]):
			i++
			j++
		case star >= 0:
			rest++
			i, j = rest, star
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "*") == ""
}
