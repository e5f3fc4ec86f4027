package systemd

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/packet"
)

// fakeJournal puts a journalctl into PATH that is a shell script.
func fakeJournal(t *testing.T, script string) {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "journalctl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
}

// readAll returns the events that ReadJournal calls with.
func readAll(t *testing.T) (events []audit.Event, err error) {
	t.Helper()
	err = ReadJournal(t.Context(), "knockwall.service", time.Unix(1_800_000_000, 5), func(e audit.Event) error {
		events = append(events, e)
		return nil
	})
	return events, err
}

var sameSource = cmp.Comparer(func(a, b packet.Source) bool { return a == b })

// What Journal writes is read again, as far as it is used.
func TestReadJournalReadsWhatJournalWrites(t *testing.T) {
	source, err := packet.ParseSource("2001:db8::/64")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	var want []audit.Event
	for i, row := range audit.Table() {
		e := audit.Event{
			Time: time.UnixMicro(1_800_000_000_000_000 + int64(i)), Kind: row.Kind, Door: "ssh", Source: source, Person: "né \"x\"", Key: "SHA256:abc",
			Port: packet.Port{Number: 22, Protocol: packet.TCP}, Code: row.Codes[0], Failed: i%2 == 0, Count: i,
		}
		written := fields(e)
		written["__REALTIME_TIMESTAMP"] = strconv.FormatInt(e.Time.UnixMicro(), 10)
		line, err := json.Marshal(written)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(line, '\n'))
		want = append(want, e)
	}
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	fakeJournal(t, `case "$*" in
*"--output=json --output-fields=KNOCKWALL_EVENT,"*" --since=@1800000000 _SYSTEMD_UNIT=knockwall.service") exec cat `+path+` ;;
esac
exit 3
`)
	got, err := readAll(t)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, sameSource); diff != "" {
		t.Errorf("events (-written +read):\n%s", diff)
	}
}

func TestReadJournalPassesOverWhatIsNoEvent(t *testing.T) {
	fakeJournal(t, `cat <<'END'
{"__REALTIME_TIMESTAMP":"1800000000000000","MESSAGE":"a line of stderr"}
{"__REALTIME_TIMESTAMP":"soon","KNOCKWALL_EVENT":"opened"}
{"__REALTIME_TIMESTAMP":"1800000000000000","KNOCKWALL_EVENT":null}
{"__REALTIME_TIMESTAMP":"1800000000000000","KNOCKWALL_EVENT":"opened","KNOCKWALL_DOOR":["ssh","web"],"KNOCKWALL_SOURCE":"fe80::1%gone","KNOCKWALL_PERSON":[102,111,255],"KNOCKWALL_COUNT":"many"}
END
`)
	got, err := readAll(t)
	want := audit.Event{Time: time.Unix(1_800_000_000, 0), Kind: audit.Opened}
	want.Source, _ = packet.ParseSource("fe80::1")
	if diff := cmp.Diff([]audit.Event{want}, got, sameSource); diff != "" || err != nil {
		t.Errorf("%v, events (-want +got):\n%s", err, diff)
	}
}

func TestReadJournalSaysWhatIsWrong(t *testing.T) {
	fakeJournal(t, "echo 'no journal files were found' >&2; exit 1\n")
	if _, err := readAll(t); err == nil || !strings.HasSuffix(err.Error(), ": no journal files were found") {
		t.Errorf("a journalctl that fails: %v", err)
	}
	fakeJournal(t, "echo '<html>'; exec sleep 600\n")
	if _, err := readAll(t); err == nil || !strings.Contains(err.Error(), "reading the journal: invalid character") {
		t.Errorf("a journalctl that writes something else: %v", err)
	}
	fakeJournal(t, `while :; do echo '{"__REALTIME_TIMESTAMP":"1","KNOCKWALL_EVENT":"opened"}'; done`)
	enough := errors.New("enough")
	err := ReadJournal(t.Context(), "knockwall.service", time.Now(), func(audit.Event) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("a caller who wants no more: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := readAll(t); !errors.Is(err, ErrNoJournal) {
		t.Errorf("without journalctl: %v", err)
	}
}
