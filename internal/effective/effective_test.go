package effective

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/onetime"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/ruleset"
	"github.com/knockwall/knockwall/sequence"
)

// compare has the options to compare configurations with secrets and lists.
var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(), // a nil list means the same as an empty one
	cmp.Comparer(func(a, b secret.Secret) bool { return a.Equal(b) }),
	cmpopts.IgnoreFields(ruleset.Wall{}, "IdentityPath"), // it depends on where the rule files are
	cmpopts.IgnoreUnexported(fixed.Sequence{}, rolling.Rolling{}, passwords.OTP{}, method.State{}, Config{}),
}

// nothingListens is a host on which no program listens.
var nothingListens = Host{}

// at resolves a configuration for a time.
func at(t *testing.T, written *ruleset.Config, now time.Time) *Config {
	t.Helper()
	c, err := Resolve(written, now, nothingListens)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// doorWith loads a configuration with one door from a file that others cannot read.
func doorWith(t testing.TB, body string) *ruleset.Config {
	t.Helper()
	return load(t, "door \"d\" {\nports = [22]\n"+body+"\n}\n")
}

// load loads rules from a file that others cannot read.
func load(t testing.TB, text string) *ruleset.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l := ruleset.Load(path)
	if l.Config == nil {
		t.Fatal(l.Diagnostics)
	}
	return l.Config
}

func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }
func udp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.UDP} }

func ports(first, last uint16, p packet.Protocol) packet.PortRange {
	return packet.PortRange{First: first, Last: last, Protocol: p}
}

// list writes a list of one-time sequences, and returns its path.
func list(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const halfMinute = `rolling { secret = "correct horse battery staple" }`

// someTime is in the middle of a step of 30 s.
var someTime = time.Unix(1_740_000_015, 0)

// Resolve does not change the configuration, and its result does not depend on earlier
// calls.
func TestWhatIsWrittenStays(t *testing.T) {
	path := list(t, "1,2,3", "4,5,6")
	text := `
door "rolling" {
  ports = [22]
  ` + halfMinute + `
}
door "list" {
  ports              = [23]
  one_time_sequences = "` + path + `"
  close_sequence     = [9, 8, 7]
}
door "fixed" {
  ports    = [24]
  sequence = [4113, "27911/udp", 1840]
}
door "traps" {
  ports    = [25]
  sequence = [5113, "28911/udp", 2840]
  traps    = ["5114-5200", "20000-30000"]
}
`
	c, was := load(t, text), load(t, text)
	first := at(t, c, someTime)
	if diff := cmp.Diff(was, c, compare); diff != "" {
		t.Errorf("what it was asked of has changed (-was +is):\n%s", diff)
	}
	if diff := cmp.Diff(first, at(t, c, someTime), compare); diff != "" {
		t.Errorf("once and twice (-once +twice):\n%s", diff)
	}
	later := someTime.Add(time.Hour)
	if diff := cmp.Diff(at(t, c, later), at(t, first.Written, later), compare); diff != "" {
		t.Errorf("later (-at once +by way of another time):\n%s", diff)
	}
	if cmp.Equal(first, at(t, c, later), compare) {
		t.Error("an hour later it is the same")
	}
	for i, steps := range []int{4, 3, 3, 3} {
		if got := first.Doors[i].Steps(); got != steps {
			t.Errorf("the door %s has %d steps, want %d", first.Doors[i].Name, got, steps)
		}
	}
}

func TestTrapsLoseWhatIsAKnock(t *testing.T) {
	for _, test := range []struct {
		name        string
		traps, want []packet.PortRange
		knocks      []packet.Port
	}{
		{"in the middle", []packet.PortRange{ports(1, 9, packet.TCP)},
			[]packet.PortRange{ports(1, 4, packet.TCP), ports(6, 9, packet.TCP)}, []packet.Port{tcp(5)}},
		{"at the ends", []packet.PortRange{ports(1, 65535, packet.UDP)},
			[]packet.PortRange{ports(2, 65534, packet.UDP)}, []packet.Port{udp(65535), udp(1)}},
		{"all of it", []packet.PortRange{ports(7, 7, packet.TCP), ports(8, 8, packet.UDP)},
			[]packet.PortRange{ports(8, 8, packet.UDP)}, []packet.Port{tcp(7)}},
		{"of another protocol", []packet.PortRange{ports(1, 9, packet.TCP)},
			[]packet.PortRange{ports(1, 9, packet.TCP)}, []packet.Port{udp(5)}},
		{"twice", []packet.PortRange{ports(1, 3, packet.TCP)},
			[]packet.PortRange{ports(1, 1, packet.TCP), ports(3, 3, packet.TCP)}, []packet.Port{tcp(2), tcp(2)}},
	} {
		was := slices.Clone(test.traps)
		if diff := cmp.Diff(test.want, without(test.traps, test.knocks)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if !slices.Equal(was, test.traps) {
			t.Errorf("%s: what was handed over is %v", test.name, test.traps)
		}
	}
}

// Three steps are valid at a time, and each keeps its place while it is valid, also before
// 1970.
func TestRollingStepsKeepTheirPlaces(t *testing.T) {
	c := doorWith(t, halfMinute)
	s := sequence.Rolling{Key: []byte("correct horse battery staple"), Length: 4, Ports: ports(20000, 29999, packet.TCP), Step: 30 * time.Second}
	for _, begin := range []int64{1_740_000_000, 0, -90, -1_740_000_000} {
		var before [][]packet.Port
		for second := begin; second < begin+120; second++ {
			now := time.Unix(second, 999_999_999)
			step := second / 30
			if second < 0 {
				step = (second - 29) / 30 // rounded down
			}
			door := &at(t, c, now).Doors[0]
			got := door.Sequences
			if len(got) != 3 {
				t.Fatalf("at %d there are %d sequences", second, len(got))
			}
			places := map[int64]int{}
			for i, knocks := range got {
				n := step + int64((i-door.States[0].Present+4)%3-1)
				places[n] = i
				if diff := cmp.Diff(s.Knocks(n), knocks); diff != "" {
					t.Errorf("at %d at place %d (-knocks of step %d +got):\n%s", second, i, n, diff)
				}
			}
			for n := step - 1; n <= step+1; n++ {
				if _, ok := places[n]; !ok {
					t.Errorf("at %d the steps are %v, without %d", second, places, n)
				}
			}
			changed := 0
			for i := range before {
				if !slices.Equal(before[i], got[i]) {
					changed++
				}
			}
			if want := map[bool]int{true: 1, false: 0}[second%30 == 0 && second > begin]; changed != want {
				t.Errorf("at %d %d places have changed, want %d", second, changed, want)
			}
			before = got
			if knocks, err := Knocks(&c.Doors[0], now); err != nil || !slices.Equal(knocks, s.Knocks(step)) {
				t.Errorf("at %d the present knocks are %v, %v; want %v", second, knocks, err, s.Knocks(step))
			}
		}
	}
}

func TestAConfigurationExpiresWhenAStepOfAnyDoorBegins(t *testing.T) {
	rollingDoor := func(name, step string) string {
		return fmt.Sprintf("door %q {\nports = [22]\nrolling {\nsecret = \"correct horse battery staple\"\nstep = %q\n}\n}\n", name, step)
	}
	const fixed = "door \"c\" {\nports = [22]\nsequence = [4113, \"27911/udp\", 1840]\n}\n"

	c := load(t, fixed)
	if next, ok := at(t, c, someTime).Expires(); ok || !at(t, c, someTime).IsOf(someTime) {
		t.Errorf("a fixed sequence turns at %v", next)
	}
	c = load(t, rollingDoor("a", "40s")+fixed+rollingDoor("b", "30s"))
	for _, test := range []struct {
		now, next int64
		steps     []int64
	}{
		{0, 30, []int64{0, 0}},
		{29, 30, []int64{0, 0}},
		{30, 40, []int64{0, 1}},
		{40, 60, []int64{1, 1}},
		{119, 120, []int64{2, 3}},
		{120, 150, []int64{3, 4}},
		{-1, 0, []int64{-1, -1}},
		{-30, 0, []int64{-1, -1}},
		{-31, -30, []int64{-1, -2}},
		{-40, -30, []int64{-1, -2}},
		{-41, -40, []int64{-2, -2}},
	} {
		for _, ns := range []int64{0, 1, 999_999_999} {
			now := time.Unix(test.now, ns)
			present := at(t, c, now)
			next, ok := present.Expires()
			if !ok || !next.Equal(time.Unix(test.next, 0)) {
				t.Errorf("at %d.%09d it turns at %d, %t, want %d", test.now, ns, next.Unix(), ok, test.next)
			}
			var steps []int64
			for _, i := range []int{0, 2} {
				length := int64(present.Doors[i].Methods[0].(*rolling.Rolling).Step / time.Second)
				steps = append(steps, present.Doors[i].States[0].From.Unix()/length)
			}
			if !slices.Equal(steps, test.steps) {
				t.Errorf("at %d.%09d it is in steps %v, want %v", test.now, ns, steps, test.steps)
			}
			if present.IsOf(next) || !present.IsOf(next.Add(-1)) || !present.IsOf(now) {
				t.Errorf("at %d.%09d it turns at %d, when the steps are not the next", test.now, ns, next.Unix())
			}
		}
	}
}

// The sequences of a list are used line by line. Nobody can open the door when all are
// used or when the list cannot be read.
func TestAListTurnsWithEachLineThatIsUsed(t *testing.T) {
	path := list(t, "# two", "1,2,3", "4,5:udp,6")
	c := doorWith(t, `one_time_sequences = "`+path+`"`)
	for i, want := range [][]packet.Port{{tcp(1), tcp(2), tcp(3)}, {tcp(4), udp(5), tcp(6)}} {
		d := at(t, c, someTime).Doors[0]
		if len(d.Sequences) != 1 || !slices.Equal(d.Sequences[0], want) || d.Stock().Left != 2-i || d.Stock().Of != path {
			t.Errorf("round %d: %v, %+v left", i, d.Sequences, d.Stock())
		}
		if knocks, err := Knocks(d.Door, someTime); err != nil || !slices.Equal(knocks, want) {
			t.Errorf("round %d: %v, %v", i, knocks, err)
		}
		if len(d.Traps) == 0 {
			t.Errorf("round %d: no traps", i)
		}
		if replay, err := d.Methods[0].(method.Sequences).Use(d.States[0], 0, someTime, nil); replay || err != nil {
			t.Fatalf("used before: %t, %v", replay, err)
		}
	}
	d := at(t, c, someTime).Doors[0]
	if d.Steps() != 0 || d.Stock().Left != 0 || len(d.Traps) != 0 {
		t.Errorf("all are used: %v, %+v left, traps %v", d.Sequences, d.Stock(), d.Traps)
	}
	if knocks, err := Knocks(d.Door, someTime); err == nil || !strings.Contains(err.Error(), "all one-time sequences of the door d are used") {
		t.Errorf("all are used: %v, %v", knocks, err)
	}

	for name, test := range map[string]struct {
		spoil func() error
		wrong func(error) bool
	}{
		"a line is no sequence": {
			func() error { return os.WriteFile(path, []byte("1,2\nmany\n"), 0o600) },
			func(err error) bool { var line *onetime.LineError; return errors.As(err, &line) && line.Line == 2 },
		},
		"it is gone": {
			func() error { return os.Remove(path) },
			func(err error) bool { return errors.Is(err, fs.ErrNotExist) },
		},
	} {
		if err := test.spoil(); err != nil {
			t.Fatal(err)
		}
		now, err := Resolve(c, someTime, nothingListens)
		if err == nil || !test.wrong(err) || !strings.Contains(err.Error(), "the door d") {
			t.Errorf("%s: %v", name, err)
		}
		if d := now.Doors[0]; d.Steps() != 0 || len(d.Sequences) != 1 || d.Stock() != nil || !d.States[0].Unread {
			t.Errorf("%s: %v, %+v left", name, d.Sequences, d.Stock())
		}
		if _, err := Knocks(&c.Doors[0], someTime); err == nil || !test.wrong(err) {
			t.Errorf("%s: present knocks: %v", name, err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPresentKnocksAreThoseThatOpen(t *testing.T) {
	c := doorWith(t, `sequence = [4113, "27911/udp", 1840]`)
	if knocks, err := Knocks(&c.Doors[0], someTime); err != nil || !slices.Equal(knocks, []packet.Port{tcp(4113), udp(27911), tcp(1840)}) {
		t.Errorf("%v, %v", knocks, err)
	}
	c = doorWith(t, `otp {
  port        = "2000/udp"
  open_secret = "hipjazz"
}
close_sequence = [3, 2, 1]`)
	if knocks, err := Knocks(&c.Doors[0], someTime); err == nil || !strings.Contains(err.Error(), "has no knocks: a one-time password opens it") {
		t.Errorf("%v, %v", knocks, err)
	}
}

// Without the secret there are no knocks, and not those of an empty secret.
func TestNoSecretMakesNoKnocks(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, []byte("door \"d\" {\nports = [22]\nrolling { secret = credential(\"d\") }\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := ruleset.Review(path)
	if l.Config == nil {
		t.Fatal(l.Diagnostics)
	}
	now, err := Resolve(l.Config, someTime, nothingListens)
	if err == nil || !strings.Contains(err.Error(), "the door d") || len(now.Doors[0].Sequences) != 0 {
		t.Errorf("%v: %v", err, now.Doors[0].Sequences)
	}
	if knocks, err := Knocks(&l.Config.Doors[0], someTime); err == nil {
		t.Errorf("present: %v", knocks)
	}
}
