package ruleset

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/packet"
)

// tableFolder has the rule files for the golden tables.
const tableFolder = "../internal/nft/testdata/tables"

var equalConfigs = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),                        // a nil list means the same as an empty one
	cmpopts.IgnoreFields(Wall{}, "IdentityPath"), // it depends on where the rule files are
	cmpopts.IgnoreUnexported(fixed.Sequence{}, rolling.Rolling{}, passwords.OTP{}),
}

// write makes a rule file in its own folder.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// writePrivate makes a rule file that others cannot read.
func writePrivate(t testing.TB, text string) string {
	t.Helper()
	path := write(t, text)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustLoad returns the configuration of a file that must not have errors.
func mustLoad(t *testing.T, path string) *Config {
	t.Helper()
	l := Load(path)
	if l.Config == nil {
		t.Fatalf("refused:\n%s", diagnosticText(t, l))
	}
	return l.Config
}

// doorWith loads a configuration with one door from a file that others cannot read.
func doorWith(t testing.TB, body string) *Config {
	t.Helper()
	l := Load(writePrivate(t, "door \"d\" {\nports = [22]\n"+body+"\n}\n"))
	if l.Config == nil {
		t.Fatal(l.Diagnostics)
	}
	return l.Config
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

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func tcp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.TCP} }
func udp(n uint16) packet.Port { return packet.Port{Number: n, Protocol: packet.UDP} }

func ports(first, last uint16, p packet.Protocol) packet.PortRange {
	return packet.PortRange{First: first, Last: last, Protocol: p}
}

// opensBy returns the method of a fixed sequence.
func opensBy(steps ...packet.Port) []method.Method {
	return []method.Method{&fixed.Sequence{Sequences: [][]packet.Port{steps}}}
}

func TestWhatIsNotSaidHasTheDefaultsOfTheDesign(t *testing.T) {
	want := &Config{
		Wall: Wall{
			Table: "knockwall", LogGroup: 7100, Queue: 7100, OnStop: Keep,
			Hold: 200 * time.Millisecond, Reorder: 20 * time.Millisecond, MaxSources: 65536, MaxWindows: 65536,
		},
		Doors: []Door{{
			Name:            "ssh",
			Ports:           []packet.PortRange{ports(22, 22, packet.TCP)},
			Methods:         opensBy(tcp(4113), udp(27911), tcp(1840)),
			SequenceTimeout: 5 * time.Second,
			Window:          30 * time.Second,
			Flags:           FlagMatch{Mask: packet.SYN | packet.ACK, Value: packet.SYN},
			Closed:          Drop,
			OnFailure:       FailClosed,
			SourcePrefix:    packet.SourcePrefix{IPv4: 32, IPv6: 128},
			PenaltyPrefix:   packet.SourcePrefix{IPv4: 32, IPv6: 64},
			UDPTimeout:      5 * time.Minute,
			TrapCount:       64,
			Penalty:         30 * time.Second,
		}},
	}
	const door = `ports = [22]` + "\n" + `sequence = [4113, "27911/udp", 1840]`
	for name, text := range map[string]string{
		"left out":   "door \"ssh\" {\n" + door + "\n}",
		"empty wall": "wall {}\ndoor \"ssh\" {\n" + door + "\n}",
		"given as null": `
			wall {
				table = null
				nflog_group = null
				queue = null
				interfaces = null
				trusted = null
				on_stop = null
				hold = null
				reorder = null
				max_sources = null
				max_windows = null
			}
			door "ssh" {
				` + door + `
				seq_timeout = null
				window = null
				tcp_flags = null
				max_connections = null
				closed = null
				on_failure = null
				interfaces = null
				to = null
				trusted = null
				source_prefix = null
				one_time_sequences = null
				close_sequence = null
				traps = null
				penalty = null
			}`,
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, mustLoad(t, write(t, text)), equalConfigs); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestEveryAttributeReachesTheConfiguration(t *testing.T) {
	// full.hcl has a value that is not the default for every attribute.
	want := &Config{
		Wall: Wall{
			Table: "house", LogGroup: 7200, Queue: 7300,
			Interfaces: []string{"wan0"},
			Trusted:    prefixes("192.168.0.100/32", "2001:db8::/48"),
			OnStop:     Remove,
			Hold:       300 * time.Millisecond, Reorder: 30 * time.Millisecond, MaxSources: 1024, MaxWindows: 4096,
		},
		Doors: []Door{{
			Name:            "ssh",
			Ports:           []packet.PortRange{ports(22, 22, packet.TCP), ports(2200, 2210, packet.TCP)},
			Methods:         opensBy(tcp(4113), udp(27911), tcp(1840)),
			SequenceTimeout: 7 * time.Second,
			Window:          90 * time.Second,
			Flags:           FlagMatch{Mask: packet.SYN | packet.ACK | packet.RST, Value: packet.SYN},
			MaxConnections:  3,
			Closed:          Reject,
			OnFailure:       FailOpen,
			Interfaces:      []string{"wan0", "wan1"},
			To:              prefixes("203.0.113.7/32", "2001:db8:1::7/128"),
			Trusted:         prefixes("198.51.100.0/24"),
			SourcePrefix:    packet.SourcePrefix{IPv4: 24, IPv6: 64},
			PenaltyPrefix:   packet.SourcePrefix{IPv4: 24, IPv6: 56},
			UDPTimeout:      2 * time.Minute,
			TrapCount:       64,
			Penalty:         30 * time.Second,
		}, {
			Name:            "vpn",
			Ports:           []packet.PortRange{ports(51820, 51820, packet.UDP)},
			Methods:         opensBy(udp(2000), tcp(2001), udp(1999)),
			SequenceTimeout: defaultDoor.SequenceTimeout,
			Window:          defaultDoor.Window,
			Flags:           defaultDoor.Flags,
			TrapCount:       defaultDoor.TrapCount,
			Penalty:         defaultDoor.Penalty,
			Closed:          Reject,
			OnFailure:       FailClosed,
			Interfaces:      []string{"wan0"}, // the wall's
			SourcePrefix:    defaultDoor.SourcePrefix,
			PenaltyPrefix:   defaultDoor.PenaltyPrefix,
			UDPTimeout:      defaultDoor.UDPTimeout,
		}},
	}
	if diff := cmp.Diff(want, mustLoad(t, filepath.Join(tableFolder, "full.hcl")), equalConfigs); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAValueCanBeWrittenInSeveralWays(t *testing.T) {
	for _, test := range []struct {
		name, attribute string
		got             func(*Door) any
		want            any
	}{
		{"ports in text, with either sign before the protocol", `ports = ["22", "23/tcp", "24:TCP"]`,
			func(d *Door) any { return d.Ports }, []packet.PortRange{ports(22, 24, packet.TCP)}},
		{"ports that overlap or touch are joined, protocols apart", `ports = ["30-40/udp", 21, "35-50/udp", 22, "51/udp", "22/udp"]`,
			func(d *Door) any { return d.Ports },
			[]packet.PortRange{ports(21, 22, packet.TCP), ports(22, 22, packet.UDP), ports(30, 51, packet.UDP)}},
		{"the first port and the last", `ports = [1, 65535]`,
			func(d *Door) any { return d.Ports }, []packet.PortRange{ports(1, 1, packet.TCP), ports(65535, 65535, packet.TCP)}},
		{"addresses and prefixes, those within another left out", `to = ["192.0.2.129/25", "192.0.2.200", "2001:db8::1"]`,
			func(d *Door) any { return d.To }, prefixes("192.0.2.128/25", "2001:db8::1/128")},
		{"flags in capitals", `tcp_flags = ["FIN", "!Urg"]`,
			func(d *Door) any { return d.Flags }, FlagMatch{Mask: packet.FIN | packet.URG, Value: packet.FIN}},
		{"one prefix length of two", `source_prefix = { ipv6 = 56 }`,
			func(d *Door) any { return d.SourcePrefix }, packet.SourcePrefix{IPv4: 32, IPv6: 56}},
		{"a prefix length with its key in quotes", `source_prefix = { "ipv4" : 8 }`,
			func(d *Door) any { return d.SourcePrefix }, packet.SourcePrefix{IPv4: 8, IPv6: 128}},
		{"a number in text", `max_connections = "7"`,
			func(d *Door) any { return d.MaxConnections }, 7},
		{"a number with an exponent", `max_connections = 1e2`,
			func(d *Door) any { return d.MaxConnections }, 100},
		{"interfaces twice", `interfaces = ["wan1", "wan0", "wan1"]`,
			func(d *Door) any { return d.Interfaces }, []string{"wan0", "wan1"}},
		{"a time of several units", `window = "1h2m3s"`,
			func(d *Door) any { return d.Window }, time.Hour + 2*time.Minute + 3*time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := "door \"a\" {\n" + test.attribute + "\nsequence = [3, 1, 2]\n"
			if !strings.HasPrefix(test.attribute, "ports") {
				text += "ports = [22]\n"
			}
			c := mustLoad(t, write(t, text+"}"))
			if diff := cmp.Diff(test.want, test.got(&c.Doors[0]), equalConfigs); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestAFolderIsReadInLexicalOrder(t *testing.T) {
	folder := t.TempDir()
	door := func(name string) string {
		return fmt.Sprintf("door %q {\nports = [22]\nsequence = [3, 1, 2]\n}\n", name)
	}
	for name, text := range map[string]string{
		"20-b.hcl":   door("b"),
		"10-a.hcl":   door("a1") + door("a2"),
		"9-last.hcl": door("last") + "wall {\ntable = \"house\"\n}",
		".30-c.hcl":  "hidden {",
		"40-d.hcl~":  "a backup {",
		"50-e.txt":   "text {",
		"README":     "{",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "sub", "x.hcl"), []byte("below {"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, folder)
	var names []string
	for _, d := range c.Doors {
		names = append(names, d.Name)
	}
	if diff := cmp.Diff([]string{"a1", "a2", "b", "last"}, names); diff != "" {
		t.Errorf("doors (-want +got)\n%s", diff)
	}
	if c.Wall.Table != "house" {
		t.Errorf("the wall of the last file is lost: table %q", c.Wall.Table)
	}
}

func TestOneFileMayHaveAnySuffix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(path, []byte("door \"a\" {\nports = [22]\nsequence = [3, 1, 2]\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustLoad(t, path)
}

// writeAll writes files to a new folder, and returns it.
func writeAll(t *testing.T, files map[string]string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestWallBlocksAreOneIfTheyAgree(t *testing.T) {
	const door = "door \"a\" {\nports = [22]\nsequence = [3, 1, 2, 4, 65000]\n}\n"
	w := mustLoad(t, writeAll(t, map[string]string{
		"1.hcl": "wall {\ntrusted = [\"192.0.2.0/24\"]\nhold = \"200ms\"\ntable = \"house\"\n}\n" + door,
		"2.hcl": "wall {\ntrusted = [\"2001:db8::1\", \"192.0.2.7\"]\nhold = \"0.2s\"\nqueue = 7200\n}\nwall {\nqueue = 7200\n}\n",
	})).Wall
	want := defaultWall
	want.Table, want.Queue = "house", 7200
	want.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")}
	if diff := cmp.Diff(want, w, equalConfigs); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A rule file with another name than *.hcl is not overlooked in silence. What rule files name
// may lie beside them.
func TestWhatElseLiesInTheFolderIsNamedOnce(t *testing.T) {
	folder := writeAll(t, map[string]string{
		"identity": "", ".hidden": "", "web.conf": "", "ssh.hcl.bak": "", "list": "1001,1002,1003\n1002,1003,1004\n", "list.old": "",
		"other.hcl": "",
	})
	text := fmt.Sprintf("door \"ssh\" {\nports = [22]\none_time_sequences = %q\n}\n", filepath.Join(folder, "list"))
	if err := os.WriteFile(filepath.Join(folder, "ssh.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, d := range Load(folder).Diagnostics {
		if d.Severity != hcl.DiagWarning {
			t.Errorf("an error: %v", d)
		}
		if d.Summary == "Not read" {
			told = append(told, d.Detail)
		}
	}
	if len(told) != 1 || !strings.HasSuffix(told[0], ": list.old, ssh.hcl.bak, web.conf.") {
		t.Errorf("told: %q", told)
	}
	for i := range mostUnread {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("a%02d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if text := diagnosticText(t, Load(folder)); !strings.Contains(text, "a09, and 3 more.") {
		t.Errorf("of many: %s", text)
	}
	for _, d := range Load(filepath.Join(folder, "ssh.hcl")).Diagnostics {
		if d.Summary == "Not read" {
			t.Error("one file was named, and the folder is told about")
		}
	}
}

func TestErrorsOfAllFilesAreToldAtOnce(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"a.hcl": "wall {\nqueue = -1\n}",
		"b.hcl": "door {",
		"c.hcl": "wall {}\ndoor \"x\" {}",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, d := range Load(folder).Diagnostics {
		got = append(got, filepath.Base(d.Subject.Filename)+": "+d.Summary)
	}
	want := []string{
		"a.hcl: Number out of range", "b.hcl: Unclosed configuration block", "b.hcl: Missing name for door",
		"c.hcl: No ports", "c.hcl: No sequence",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	for _, test := range []struct {
		name, want string
		make       func(path string) error
	}{
		{"a folder named x.hcl", "x.hcl is not a regular file", func(path string) error { return os.Mkdir(path, 0o755) }},
		{"a symlink to itself", "too many levels of symbolic links", func(path string) error { return os.Symlink(path, path) }},
		{"a symlink to nowhere", "no such file", func(path string) error { return os.Symlink(path+"-gone", path) }},
		{"a file above the limit", "at most 256 KiB", func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte("\n"), maxFileSize+1), 0o644)
		}},
		{"a device without end", "is not a regular file", func(path string) error { return os.Symlink("/dev/zero", path) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := t.TempDir()
			path := filepath.Join(folder, "x.hcl")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			l := Load(folder)
			text := strings.Join(strings.Fields(diagnosticText(t, l)), " ")
			if l.Config != nil || !strings.Contains(text, test.want) || !strings.Contains(text, path) {
				t.Errorf("want an error with %q and the path, got:\n%s", test.want, text)
			}
		})
	}

	t.Run("a file that is not ours to read", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root reads every file: needs a user that is not root")
		}
		path := write(t, "")
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if text := diagnosticText(t, Load(path)); !strings.Contains(text, "permission denied") {
			t.Errorf("got:\n%s", text)
		}
	})

	t.Run("nothing", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "gone")
		l := Load(path)
		if text := strings.Join(strings.Fields(diagnosticText(t, l)), " "); l.Config != nil || !strings.Contains(text, path+" does not exist") {
			t.Errorf("got:\n%s", text)
		}
	})

	t.Run("too many files", func(t *testing.T) {
		folder := t.TempDir()
		for i := range maxFiles + 1 {
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.hcl", i)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		l := Load(folder)
		if text := diagnosticText(t, l); l.Config != nil || !strings.Contains(text, "at most") {
			t.Errorf("got:\n%s", text)
		}
	})
}

func TestAFileAtTheLimitIsRead(t *testing.T) {
	text := "door \"a\" {\nports = [22]\nsequence = [3, 1, 2]\n}\n"
	mustLoad(t, write(t, text+strings.Repeat("#", maxFileSize-len(text))))
}

func TestTooManyDoorsAreOneError(t *testing.T) {
	folder := t.TempDir()
	const files = 8 // a file has too little room for all
	for n := range files {
		var b strings.Builder
		for i := range maxDoors/files + 1 {
			fmt.Fprintf(&b, "door \"d%d-%d\" {\nports = [%d]\nsequence = [3, 1, 2]\n}\n", n, i, 10000+n*maxDoors/files+i)
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.hcl", n)), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := Load(folder)
	errors := slices.DeleteFunc(slices.Clone(l.Diagnostics), func(d *hcl.Diagnostic) bool { return d.Severity != hcl.DiagError })
	if len(errors) != 1 || errors[0].Summary != "Too many doors" {
		t.Errorf("got %v", errors)
	}
}

// TestHostileFilesEndSoon fills files up to their limit with text that is expensive to
// parse. Each crashed the process or ran for minutes once, or could have.
func TestHostileFilesEndSoon(t *testing.T) {
	wall := func(value string) string { return "wall {\n  table = " + value + "\n}\n" }
	repeat := func(s string) string { return strings.Repeat(s, (maxFileSize-64)/len(s)) }
	for name, text := range map[string]string{
		"not not not":              wall(repeat("!") + "true"),
		"minus minus":              wall(repeat("-") + "1"),
		"minus with blanks":        wall(repeat("- ") + "1"),
		"open parentheses":         wall(repeat("(")),
		"open brackets":            wall(repeat("[")),
		"brackets":                 wall(strings.Repeat("[", maxFileSize/2-64) + strings.Repeat("]", maxFileSize/2-64)),
		"open braces":              wall(repeat("{")),
		"blocks in blocks":         repeat("a {\n"),
		"templates in templates":   wall(repeat(`"${`)),
		"directives in directives": wall(repeat(`"%{if `)),
		"sums":                     wall("1" + repeat("+1")),
		"choices":                  wall(repeat("1?1:") + "1"),
		"attributes of attributes": wall("a" + repeat(".a")),
		"elements of elements":     wall("[]" + repeat("[0]")),
		"all of all":               wall("a" + repeat("[*]")),
		"loops in loops": wall(strings.Repeat("[for a in [1, 2, 3, 4, 5, 6, 7, 8, 9]: ", maxNesting/2) + "1" +
			strings.Repeat("]", maxNesting/2)),
		"a number of many digits":           wall("1e60000000"),
		"a list with such a number":         "door \"a\" {\nports = [1e60000000]\nsequence = [-1e60000000]\n}",
		"text with such a number in it":     wall(`"${1e60000000}"`),
		"a number that is many digits long": wall(repeat("9")),
		"a list of errors":                  "door \"a\" {\nports = [" + repeat(`"",`) + "]\n}",
		"walls":                             repeat("wall{}\n"),
		"doors":                             repeat("door \"\" {}\n"),
		"one argument again and again":      "wall {\n" + repeat("a=1\n") + "}",
		"quotes":                            repeat(`"`),
		"lines":                             repeat("\n") + wall("[]"),
		"NUL bytes":                         repeat("\x00"),
		"what is not UTF-8":                 repeat("\xff\xc0"),
		"escapes for the terminal":          repeat("\x1b[2J"),
		"a long door name":                  "door \"" + repeat("a") + "\" {}",
		"a byte order mark":                 "\ufeff" + wall("[]"),
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, text)
			l := Load(path)
			if l.Config != nil {
				t.Error("it was taken for a configuration")
			}
			printed := &inspector{}
			if err := l.WriteText(printed, 78, false); err != nil {
				t.Fatal(err)
			}
			if printed.escape {
				t.Error("the diagnostics would control the terminal")
			}
			if most := (maxDiagnostics + 1) * 10 * 78; printed.n > most+len(text) {
				t.Errorf("%d bytes are said of a file of %d", printed.n, len(text))
			}
		})
	}
}

// inspector checks what is written to it.
type inspector struct {
	n      int
	escape bool
}

func (i *inspector) Write(b []byte) (int, error) {
	i.n += len(b)
	i.escape = i.escape || bytes.ContainsAny(b, "\x1b\x00\r")
	return len(b), nil
}

func TestColoursAreForTerminalsOnly(t *testing.T) {
	for _, test := range []struct{ path, colour string }{
		{"testdata/errors/wall_values.hcl", "\x1b[1;31mError\x1b[0m: "},
		{"testdata/warnings/few.hcl", "\x1b[1;33mWarning\x1b[0m: "},
	} {
		l := Load(test.path)
		var b strings.Builder
		if err := l.WriteText(&b, 78, true); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(b.String(), test.colour) {
			t.Errorf("%s: no colour: %q", test.path, b.String())
		}
		if plain := diagnosticText(t, l); strings.Contains(plain, "\x1b") {
			t.Errorf("%s: colour where none was asked for: %q", test.path, plain)
		}
	}
}

func TestDiagnosticsKeepWithinTheirWidth(t *testing.T) {
	l := Load("testdata/errors/wall_values.hcl")
	for _, width := range []uint{0, 40, 78, 200} {
		var b strings.Builder
		if err := l.WriteText(&b, width, false); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "  on ") {
				continue // a path is not broken
			}
			if most := max(int(width), minWidth); len([]rune(line)) > most {
				t.Errorf("width %d: %q has %d columns", width, line, len([]rune(line)))
			}
		}
	}
}

func TestAWriterThatFailsIsReported(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	if err := Load("testdata/warnings/few.hcl").WriteText(w, 78, false); err == nil {
		t.Error("no error")
	}
}

func TestCaretsStandUnderWhatTheyMean(t *testing.T) {
	long := strings.Repeat("x", 500)
	for _, test := range []struct {
		name       string
		text, mark string // the first occurrence of mark is what is meant
		columns    int
		line       string
		carets     string // below line
	}{
		{"a short line", "a = 12\nb = 3\n", "12", 20,
			"a = 12",
			"    ^^"},
		{"the last line, without an end", "a = 12", "12", 20,
			"a = 12",
			"    ^^"},
		{"tabs", "\ta\t= 12\n", "12", 20,
			"    a    = 12",
			"           ^^"},
		{"carriage returns", "a = 12\r\nb", "12\r\nb", 20,
			"a = 12",
			"    ^^"},
		{"letters of several bytes", "é = \"ü\"", "\"ü\"", 20,
			"é = \"ü\"",
			"    ^^^"},
		{"control characters", "a\x1b\x00 = 1", "1", 20,
			"a\ufffd\ufffd = 1",
			"      ^"},
		{"several lines: the first", "a = [\n1,\n]\n", "[\n1,\n]", 20,
			"a = [",
			"    ^"},
		{"an end of file", "a = ", "", 20,
			"a =",
			"^"},
		{"a long value", "a = " + long, long, 20,
			"a = xxxxxxxxxxxxxxx…",
			"    ^^^^^^^^^^^^^^^^"},
		{"much before", "a = \"" + long + "\" 12", " 12", 20,
			"…xxxxxxxx\" 12",
			"          ^^^"},
		{"much behind", "a = 12" + long, "12", 20,
			"a = 12xxxxxxxxxxxxx…",
			"    ^^"},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := strings.Index(test.text, test.mark)
			line, before, marked := excerpt([]byte(test.text), start, start+len(test.mark), test.columns)
			if line != test.line {
				t.Errorf("line %q, want %q", line, test.line)
			}
			if carets := strings.Repeat(" ", before) + strings.Repeat("^", marked); carets != test.carets {
				t.Errorf("carets %q, want %q", carets, test.carets)
			}
		})
	}
}

func TestWhatNobodyWouldReadIsCountedInstead(t *testing.T) {
	const n = maxDiagnostics + 7
	l := Load(write(t, "door \"a\" {\nports = ["+strings.Repeat("0,\n", n)+"]\nsequence = [3, 1, 2]\n}"))
	if len(l.Diagnostics) != maxDiagnostics+1 {
		t.Fatalf("%d diagnostics", len(l.Diagnostics))
	}
	if last := l.Diagnostics[maxDiagnostics]; last.Summary != "And 7 more" || last.Severity != hcl.DiagError {
		t.Errorf("the last is %v", last)
	}
}

// The kernel tells the windows of doors apart by numbers, which two names can share by chance.
func TestDoorsWithTheSameNumberAreRefused(t *testing.T) {
	names := map[uint32]string{}
	for i := 0; ; i++ {
		name := fmt.Sprintf("door-%d", i)
		other, ok := names[DoorNumber(name)]
		names[DoorNumber(name)] = name
		if !ok {
			continue
		}
		const door = "door %q {\n ports = [%d]\n sequence = [4113, 27911, 1840]\n}\n"
		l := Load(write(t, fmt.Sprintf(door+door, other, 22, name, 23)))
		if l.Config != nil || !strings.Contains(l.Diagnostics.Error(), "Two doors of one number") {
			t.Errorf("%s and %s: %v", other, name, l.Diagnostics)
		}
		return
	}
}
