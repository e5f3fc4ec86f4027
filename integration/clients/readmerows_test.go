package clients

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/integration/lab"
)

// Each knock in the README's table of clients opens a door, as it is written there.
func TestTheKnocksInTheREADMEsTableOfClients(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	lab.Must(t, err)
	_, table, _ := strings.Cut(string(readme), "\n## Connect\n")
	table, _, _ = strings.Cut(table, "\n## ")
	fixed, tcp := `4113, "27911/udp", 1840`, `4113, 1840, 9127`
	for row, c := range map[string]struct{ program, knocks string }{
		"knockd's client":  {"knock", fixed},
		"nmap, TCP knocks": {"nmap", tcp},
		"nc, TCP knocks":   {"nc", tcp},
	} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			program := lab.NeedsProgram(t, c.program)
			m := regexp.MustCompile("(?m)^\\| " + regexp.QuoteMeta(row) + " \\| `(.+?)(?: &&|;) ssh HOST` \\|$").FindStringSubmatch(table)
			if m == nil {
				t.Fatalf("the README has no such row:\n%s", table)
			}
			l := lab.New(t)
			l.ServeTCP(22)
			// On a busy machine these programs need a long time.
			d := l.Run(`door "ssh" {
  ports       = [22]
  sequence    = [` + c.knocks + `]
  seq_timeout = "2m"
}`)
			text := strings.NewReplacer("HOST", lab.Server4.String(), " "+c.program+" ", " "+program+" ").Replace(m[1])
			if out, err := l.RunOnClient("sh", "-c", text); err != nil && c.program != "nc" { // which fails if nothing answers
				t.Fatalf("%s: %v\n%s", text, err, out)
			}
			d.WaitFor("opened", "door=ssh")
			if !l.Admits(lab.Client4, lab.Server4, 22) {
				t.Error("refused after the knocks")
			}
		})
	}
}
