package ruleset

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
)

// testdata/errors/interfaces.hcl has the names that are refused, with the texts.
func TestNamesAndPatternsOfInterfacesAreTaken(t *testing.T) {
	for _, name := range []string{"eth0", "eth0.5", "br-0@x", "ppp*", "p*", "any1", "lo1", "l*", "enp0s31f6", "fifteen-letters", "f0urteen-bytes*", "wlàn0"} {
		if err := CheckInterface(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAPatternFitsWhatBeginsSo(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"ppp*", "ppp0", true}, {"ppp*", "ppp", true}, {"ppp*", "pp", false}, {"ppp*", "xppp0", false},
		{"ppp0", "ppp0", true}, {"ppp0", "ppp01", false}, {"ppp", "ppp0", false},
	} {
		if got := FitsInterface(test.pattern, test.name); got != test.want {
			t.Errorf("%s fits %s: %v", test.name, test.pattern, got)
		}
	}
}

// A packet that matches two patterns of a list would meet the door twice.
func TestWhatAPatternCoversIsLeftOut(t *testing.T) {
	c := mustLoad(t, write(t, `door "a" {
		ports = [22]
		sequence = [3, 1, 2]
		interfaces = ["ppp0", "ppp1*", "ppp*", "pp", "wan0", "pp"]
	}`))
	if diff := cmp.Diff([]string{"pp", "ppp*", "wan0"}, c.Doors[0].Interfaces); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Two doors at the same port that answer differently are an error, unless no packet can
// meet both.
func TestDoorsAreApartByInterfaces(t *testing.T) {
	for _, test := range []struct {
		a, b  string
		apart bool
	}{
		{"ppp*", "ppp0", false}, {"ppp0", "ppp*", false}, {"ppp*", "p*", false}, {"p*", "ppp*", false}, {"ppp*", "ppp", false},
		{"ppp*", "pp", true}, {"ppp*", "wan*", true}, {"ppp*", "wan0", true}, {"ppp0", "ppp", true},
	} {
		l := Load(write(t, `
			door "a" {
				ports = [22]
				sequence = [3, 1, 2]
				interfaces = ["`+test.a+`"]
			}
			door "b" {
				ports = [22]
				sequence = [6, 4, 5]
				closed = "reject"
				interfaces = ["`+test.b+`"]
			}`))
		if apart := l.Config != nil; apart != test.apart {
			t.Errorf("%s and %s are apart: %v", test.a, test.b, apart)
		}
		if !test.apart && !slices.ContainsFunc(l.Diagnostics, func(d *hcl.Diagnostic) bool { return d.Summary == "Doors that disagree" }) {
			t.Errorf("%s and %s: %v", test.a, test.b, l.Diagnostics)
		}
	}
}
