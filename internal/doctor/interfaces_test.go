package doctor

import (
	"strings"
	"testing"
)

// The test feeds descriptions of devices to the checks. The integration tests show on a
// real kernel that the descriptions are right and that packets come in as the findings
// say.
func TestInterfacesThatPacketsDoNotComeInBy(t *testing.T) {
	plain := device{name: "eth0", kind: "device", index: 2, addressed: true}
	bridge := []device{
		{name: "eth0", kind: "device", index: 2, master: 3},
		{name: "br0", kind: "bridge", index: 3, addressed: true},
		{name: "eth1", kind: "device", index: 4, addressed: true},
	}
	bond := []device{
		{name: "eth0", kind: "device", index: 2, master: 3}, {name: "eth1", kind: "device", index: 4, master: 3},
		{name: "bond0", kind: "bond", index: 3, master: 5}, {name: "br0", kind: "bridge", index: 5, addressed: true},
	}
	vlan := []device{plain, {name: "eth0.5", kind: "vlan", index: 3, parent: 2, addressed: true}}
	trunk := []device{{name: "eth0", kind: "device", index: 2}, vlan[1]}
	vrf := []device{{name: "eth0", kind: "device", index: 2, master: 3, addressed: true}, {name: "red", kind: "vrf", index: 3}}
	for _, test := range []struct {
		name  string
		named string
		has   []device
		want  []string // severity, whether the door is bare, and words of the problem and of the cure
	}{
		{"one that is there", "eth0", []device{plain}, nil},
		{"a pattern that fits", "eth*", []device{plain}, nil},
		{"none such", "eth9", []device{plain}, []string{`error bare | no interface "eth9" | "eth0"`}},
		{"none at all", "eth9", nil, []string{`error bare | no interface "eth9" | Leave interfaces out`}},
		{"one of two", "eth0 eth9", []device{plain}, []string{`error | no interface "eth9" | "eth0"`}},
		{"a pattern that fits none", "ppp*", []device{plain}, []string{`warning bare | begins with "ppp" | from its first packet`}},
		{"a pattern that fits none beside one that is there", "eth0 ppp*", []device{plain}, []string{`warning | begins with "ppp" | from its first packet`}},
		{"in capitals", "ETH0", []device{plain}, []string{`error bare | but there is one "eth0" | Write "eth0"`}},
		{"as ip link shows it", "eth0.5@eth0", vlan, []string{`error bare | but there is one "eth0.5" | Write "eth0.5"`}},
		{"an altname", "wan", []device{{name: "eth0", kind: "device", index: 2, others: []string{"wan"}}},
			[]string{`error bare | "wan" is an altname of "eth0" | Write "eth0"`}},
		{"a pattern that fits an altname", "enp*", []device{{name: "eth0", kind: "device", index: 2, others: []string{"enp0s3"}}},
			[]string{`error bare | "enp0s3" is an altname of "eth0" | Write "eth0"`}},

		{"a bridge", "br0", bridge, nil},
		{"a port of a bridge", "eth0", bridge, []string{`error bare | "eth0" is a port of the bridge "br0" | Write "br0"`}},
		{"a port of a bridge beside it", "br0 eth0", bridge, nil},
		{"a port of a bridge among others", "eth0 eth1", bridge, []string{`error | "eth0" is a port of the bridge "br0" | Write "br0"`}},
		{"a pattern that fits such a port, too", "eth*", bridge, []string{`warning | "eth0" is a port of the bridge "br0" | Write "br0"`}},
		{"a pattern that fits only such ports", "eth*", bridge[:2], []string{`error bare | "eth0" is a port of the bridge "br0" | Write "br0"`}},
		{"a part of a bond that is a port of a bridge", "eth0", bond, []string{`error bare | "eth0" is a part of the bond "bond0" | Write "br0"`}},
		{"several of them are told once", "eth*", bond, []string{`error bare | "eth0" is a part of the bond "bond0" | Write "br0"`}},
		{"a team", "eth0", []device{{name: "eth0", kind: "device", index: 2, master: 3}, {name: "t0", kind: "team", index: 3}},
			[]string{`error bare | "eth0" is a port of the team "t0" | Write "t0"`}},
		{"Open vSwitch", "eth0", []device{{name: "eth0", kind: "device", index: 2, master: 3}, {name: "ovs-system", kind: "openvswitch", index: 3}},
			[]string{`error bare | "eth0" is a port of the Open vSwitch "ovs-system" | internal ports`}},

		{"a VLAN", "eth0.5", vlan, nil},
		{"what a VLAN lies on", "eth0", vlan, []string{`warning | not the VLAN "eth0.5" | write "eth0", "eth0.5"`}},
		{"both", "eth0 eth0.5", vlan, nil},
		{"a pattern for both", "eth*", vlan, nil},
		{"what a VLAN lies on that has all addresses", "eth0", trunk, []string{`error bare | "eth0" has no address | Write "eth0.5"`}},
		{"what a macvlan lies on", "eth0", []device{plain, {name: "mv0", kind: "macvlan", index: 3, parent: 2}},
			[]string{`warning | not the macvlan "mv0" | write "eth0", "mv0"`}},
		{"what a macvlan takes all from", "eth0", []device{plain, {name: "mv0", kind: "macvlan", index: 3, parent: 2, passthru: true}},
			[]string{`error bare | passes all its packets to the macvlan "mv0" | Write "mv0"`}},
		{"the other end of a cable", "eth0", []device{plain, {name: "v1", kind: "veth", index: 3, parent: 2}}, nil},

		{"an interface in a VRF", "eth0", vrf, nil},
		{"both it and the VRF", "eth0 red", vrf, nil},
		{"a VRF", "red", vrf, []string{`error | "red" is a VRF | Write "eth0"`}},
		{"a dummy", "dummy0", []device{plain, {name: "dummy0", kind: "dummy", index: 3, addressed: true}},
			[]string{`error bare | Nothing comes in by "dummy0" | leave interfaces out`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := judgeAll(strings.Fields(test.named), test.has)
			if len(found) != len(test.want) {
				t.Fatalf("found %+v, want %q", found, test.want)
			}
			for i, f := range found {
				kind := string(f.Severity)
				if f.Bare {
					kind += " bare"
				}
				want := strings.Split(test.want[i], " | ")
				if kind != want[0] || !strings.Contains(f.Problem, want[1]) || !strings.Contains(f.Cure, want[2]) {
					t.Errorf("found %s: %s %s\nwant %q", kind, f.Problem, f.Cure, test.want[i])
				}
			}
		})
	}
}
