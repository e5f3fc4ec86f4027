package table

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// tables are the rule files whose tables are reviewed as text: the golden files of package
// nft.
var tables = []string{"small", "full", "odd", "ways"}

const tableFolder = "../../internal/nft/testdata/tables"

// goldenTime is the time for which they were made, on a host without listening programs.
var goldenTime = time.Unix(1_740_000_000, 0)

// tableAt returns the table of a configuration at a time.
func tableAt(t testing.TB, c *ruleset.Config, now time.Time) *nft.Table {
	t.Helper()
	resolved, err := effective.Resolve(c, now, effective.Host{})
	lab.Must(t, err)
	return nft.NewTable(resolved, nft.NumbersOf(resolved.Wall, 0))
}

// queueStatement matches what nft lists instead of a queue statement if x_tables does the
// queueing. That depends on the version of nft, and on whether iptables is installed.
var (
	queueStatement = regexp.MustCompile(`(?m) queue (flags bypass )?to \d+$`)
	ownership      = regexp.MustCompile(`\{ # progname .*\n\tflags owner(,persist)?\n`)
	foreignTarget  = regexp.MustCompile(`(?m)( xt target "?NFQUEUE"?| queue num \d+( bypass)?)?[ \t]*\n*$`)
)

// The kernel lists an installed table as the golden text, which `knockwall ruleset` prints.
// A second installation changes nothing. Other tables are not touched.
func TestTheKernelListsTheGoldenTable(t *testing.T) {
	t.Parallel()
	for _, name := range tables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			const foreign = "table inet other {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 1 drop\n\t}\n}\n"
			l.LoadNft(foreign)
			golden, err := os.ReadFile(filepath.Join(tableFolder, name+".nft"))
			lab.Must(t, err)
			text, err := os.ReadFile(filepath.Join(tableFolder, name+".hcl"))
			lab.Must(t, err)
			rules := l.WriteRules(string(text)) // others cannot read its secrets
			loaded := ruleset.Load(rules)
			if loaded.Config == nil {
				t.Fatal(loaded.Diagnostics)
			}
			table := tableAt(t, loaded.Config, goldenTime)

			lab.Must(t, l.Server.Do(func() error {
				k, err := nft.OpenKernel()
				if err != nil {
					return err
				}
				defer k.Close()
				for round := range 2 {
					if err := k.Install(table, nil, ""); err != nil {
						return err
					}
					if intact, err := k.Intact(table); err != nil || !intact {
						t.Errorf("round %d: the table that was just installed is intact: %v, %v", round, intact, err)
					}
					listed := l.Nft("list", "table", "inet", table.Name)
					if owned := ownership.MatchString(listed); owned != k.Features().Ownership {
						t.Errorf("the process owns the table: %v, want %v", owned, !owned)
					}
					listed = ownership.ReplaceAllString(listed, "{\n")
					if round == 0 {
						compareListing(l, t, k, withoutComments(string(golden)), listed)
					} else {
						// The listing has kept parts before new ones.
						compareListing(l, t, k, sortBlocks(withoutComments(string(golden))), sortBlocks(listed))
					}
					compareQueues(l, t, string(golden), round)
				}
				return nil
			}))
			if got := l.Nft("list", "table", "inet", "other"); got != foreign {
				t.Errorf("another table has changed:\n%s", cmp.Diff(foreign, got))
			}

			before := tableAt(t, loaded.Config, time.Now()).String()
			cmd := lab.Knockwall("ruleset", "--config", rules)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, t.Output()
			lab.Must(t, lab.StartOn(l.Server, cmd)) // no program listens there
			lab.Must(t, cmd.Wait())
			script := out.String()
			printed := string(golden)
			resolved, err := effective.Resolve(loaded.Config, goldenTime, effective.Host{})
			lab.Must(t, err)
			if _, expires := resolved.Expires(); expires {
				// ruleset prints the table of the current time.
				printed = before
				if after := tableAt(t, loaded.Config, time.Now()).String(); strings.HasSuffix(script, after) {
					printed = after
				}
			}
			if !strings.HasSuffix(script, printed) {
				t.Errorf("ruleset prints something else:\n%s", cmp.Diff(printed, script))
			}
			loadScript(l, t, script, printed, table.Name)
		})
	}
}

func compareListing(l *lab.Lab, t *testing.T, k *nft.Kernel, golden, listed string) {
	t.Helper()
	if !k.Features().NativeQueue {
		golden = queueStatement.ReplaceAllString(golden, "")
		golden, listed = squeeze(golden), squeeze(foreignTarget.ReplaceAllString(listed, "\n"))
	}
	if diff := cmp.Diff(sortMaps(golden), sortMaps(listed)); diff != "" {
		t.Errorf("the listing (-golden +listed):\n%s", diff)
	}
}

var inMap = regexp.MustCompile(`(vmap|th dport) \{ ([^}]*) \}`)

// sortMaps sorts the elements of the verdict maps in a listing, and of sets with keys of
// several parts. nft sorts such keys by the order of bytes of the machine.
func sortMaps(listing string) string {
	return inMap.ReplaceAllStringFunc(listing, func(m string) string {
		parts := inMap.FindStringSubmatch(m)
		elements := strings.Split(parts[2], ", ")
		slices.Sort(elements)
		return parts[1] + " { " + strings.Join(elements, ", ") + " }"
	})
}

var chainComment = regexp.MustCompile(`(?m)^\t# .*\n`)

// withoutComments removes the comments at chains, which the kernel does not have.
func withoutComments(listing string) string { return chainComment.ReplaceAllString(listing, "") }

// sortBlocks sorts the sets, counters and chains of a listing.
func sortBlocks(listing string) string {
	head, rest, _ := strings.Cut(listing, "{\n")
	blocks := strings.Split(strings.Trim(strings.TrimSuffix(rest, "}\n"), "\n"), "\n\n")
	slices.Sort(blocks)
	return head + "{\n" + strings.Join(blocks, "\n\n") + "\n}\n"
}

// squeeze removes empty lines, and spaces at the ends of lines.
func squeeze(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if line = strings.TrimRight(line, " \t\n"); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// compareQueues compares the queues' numbers and flags with those in the kernel. nft does
// not list them if x_tables does the queueing.
func compareQueues(l *lab.Lab, t *testing.T, golden string, round int) {
	t.Helper()
	type queue struct {
		number uint16
		bypass bool
	}
	var got, want []queue
	for _, m := range regexp.MustCompile(`queue (flags bypass )?to (\d+)`).FindAllStringSubmatch(golden, -1) {
		p, err := packet.ParsePort(m[2])
		lab.Must(t, err)
		want = append(want, queue{p.Number, m[1] != ""})
	}
	conn, err := nftables.New()
	lab.Must(t, err)
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	lab.Must(t, err)
	for _, c := range chains {
		if c.Table.Name == "other" {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		lab.Must(t, err)
		for _, r := range rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case *expr.Queue:
					got = append(got, queue{e.Num, e.Flag&expr.QueueFlagBypass != 0})
				case *expr.Target:
					info := *e.Info.(*xt.Unknown)
					got = append(got, queue{uint16(info[0]) | uint16(info[1])<<8, info[4]&1 != 0})
				}
			}
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(queue{})); diff != "" {
		t.Errorf("round %d: the queues (-golden +kernel):\n%s", round, diff)
	}
}

// loadScript loads the output of `ruleset` twice, if the kernel has what nft's queue
// statement needs.
func loadScript(l *lab.Lab, t *testing.T, script, golden, table string) {
	t.Helper()
	native := false
	lab.Must(t, l.Server.Do(func() error {
		k, err := nft.OpenKernel()
		if err == nil {
			native = k.Features().NativeQueue
			k.Close()
		}
		return err
	}))
	t.Logf("nftables can queue by themselves: %v", native)
	if !native {
		return // the kernel of the virtual machine has it
	}
	for range 2 {
		l.LoadNft(script)
		listed := familyReject.ReplaceAllString(l.Nft("list", "table", "inet", table), "reject")
		if diff := cmp.Diff(sortMaps(withoutComments(golden)), sortMaps(listed)); diff != "" {
			t.Errorf("the listing of the loaded script (-golden +listed):\n%s", diff)
		}
	}
}

// In a rule of one IP version, nft adds the answer of that version to a reject without one.
var familyReject = regexp.MustCompile(`reject with icmp(v6)? port-unreachable`)

// A daemon takes its groups and queues in turn, so that a table never names a number that
// is just being bound. A daemon that starts after a kill leaves the rest of the table as it
// was.
func TestRestartTakesTheOtherNumbers(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	for round, group := range []string{"group 7100", "group 7101", "group 7100"} {
		d := l.Run(lab.SSHRules)
		if listing := l.Nft("list", "table", "inet", "knockwall"); !strings.Contains(listing, group) {
			t.Errorf("round %d: the rules do not log to %s", round, group)
		}
		d.Stop(syscall.SIGKILL)
	}
}
