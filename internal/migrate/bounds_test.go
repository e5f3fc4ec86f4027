package migrate_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/migrate"
)

// refused returns the errors of a file that cannot be imported.
func refused(t *testing.T, text string) string {
	t.Helper()
	rules, err := migrate.Import(migrate.File{Name: "f", Text: []byte(text)})
	if err == nil {
		t.Fatalf("it became %d bytes", len(rules))
	}
	return err.Error()
}

func TestWhatIsTooMuchIsRefused(t *testing.T) {
	if got := refused(t, strings.Repeat("#", migrate.MaxSize+1)); !strings.Contains(got, "more than 1024 KiB") {
		t.Error(got)
	}

	var b strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&b, "[%d]\nsequence = 1,2,3\ncommand = iptables -I INPUT -s %%IP%% -p tcp --dport 22 -j ACCEPT\n", i)
	}
	if got, want := refused(t, b.String()), "f line 3001: a file has at most 1000 doors: split it, and import the parts"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	b.Reset()
	for range 1001 {
		b.WriteString("22:1,3,2\n")
	}
	if got, want := refused(t, b.String()), "f line 1001: a file has at most 1000 doors: split it, and import the parts"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	long := strings.Repeat("[a]\nsequence = 1,2,3\ncommand = echo "+strings.Repeat("x", 10<<10)+"\n", 30)
	if got := refused(t, long); !strings.Contains(got, "and a rule file has at most 256 KiB: split the file") {
		t.Error(got)
	}

	if got := refused(t, "[options]\n"+strings.Repeat("x\n", 100_000)); strings.Count(got, "\n") != 100 ||
		!strings.HasSuffix(got, "f: there are more errors: only the first 100 are shown") {
		t.Error(got)
	}
}

func TestAThousandDoors(t *testing.T) {
	var b bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&b, "%d:1,3,2\n", i/2+1)
	}
	rules, err := migrate.Import(migrate.File{Name: "f", Text: b.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	mustLoad(t, rules)
}
