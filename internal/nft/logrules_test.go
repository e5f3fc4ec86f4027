//go:build linux

package nft

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// steps parses knocks that are separated by spaces.
func steps(t testing.TB, text string) (knocks []packet.Port) {
	t.Helper()
	for _, field := range strings.Fields(text) {
		p, err := packet.ParsePort(field)
		if err != nil {
			t.Fatal(err)
		}
		knocks = append(knocks, p)
	}
	return knocks
}

// A knock completes no sequence if none continues with it after its first knock. Its
// sources are not remembered.
func TestBeginnings(t *testing.T) {
	for _, tt := range []struct {
		name      string
		sequences []string
		closes    string
		want      string
	}{
		{"no knocks", nil, "", ""},
		{"one knock", []string{"7000"}, "", ""},
		{"two knocks", []string{"7000 8000"}, "", "7000"},
		{"three knocks", []string{"7000 8000 9000"}, "", "7000"},
		{"the first one comes again", []string{"7000 8000 7000"}, "", ""},
		{"the same number by another protocol", []string{"7000 7000/udp"}, "", "7000"},
		{"the second is the first of another", []string{"7000 8000", "8000 9000"}, "", "7000"},
		{"each is the first of one and the last of another", []string{"7000 8000", "8000 7000"}, "", ""},
		{"one knock, and the first of others", []string{"7000", "7000 8000"}, "", ""},
		{"three steps of a rolling sequence", []string{"20001 20002 20003", "20004 20005 20006", "20007 20001 20008"}, "", "20004 20007"},
		{"it is closed, too", []string{"7000 8000"}, "4000 5000", "4000 5000 7000"},
		{"it is closed the other way round", []string{"7000 8000 9000"}, "9000 8000 7000", "7000 7000"},
		{"it is closed by what it is opened with, and more", []string{"7000 8000"}, "8000 4000", "4000 7000"},
		{"it is only closed", nil, "4000 5000", "4000 5000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := door{&effective.Door{Door: &ruleset.Door{CloseSequence: steps(t, tt.closes)}}}
			for _, s := range tt.sequences {
				d.Sequences = append(d.Sequences, steps(t, s))
			}
			before := slices.Clone(d.AllKnocks())
			var got []string
			for _, p := range d.beginnings() {
				got = append(got, strings.TrimSuffix(p.String(), "/tcp"))
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("the beginnings (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, d.AllKnocks()); diff != "" {
				t.Errorf("the door's knocks are others now (-want +got):\n%s", diff)
			}
		})
	}
}

// A list of one-time sequences has one valid sequence, whose first knock is a beginning.
func TestBeginningsOfAList(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("7001,8001,9001\n8001,7001,9002"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := at(t, doorWith(t, `one_time_sequences = "`+list+`"`), someTime)
	if got := (door{&c.Doors[0]}).beginnings(); !slices.Equal(got, steps(t, "7001")) {
		t.Errorf("%v", got)
	}
}
