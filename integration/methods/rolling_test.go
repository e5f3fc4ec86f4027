package methods

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/eventually"
	"github.com/knockwall/knockwall/internal/packet"
)

// rollingStep is the step of the doors below, the shortest that is allowed.
const rollingStep = 5 * time.Second

// Actions that must happen within one step are tried this often, if the step ends
// meanwhile.
const (
	triesInStep = 12
	tooSlow     = "this machine is so slow that no try ended within its step"
)

const rollingSecret = "hipjazz"

// rollingDoor returns a door with other knocks in each step.
func rollingDoor(name string, guards int, ports string) string {
	return fmt.Sprintf(`door %q {
  ports  = [%d]
  window = "10m"
  rolling {
    secret = %q
    length = 4
    ports  = %q
    step   = %q
  }
}
`, name, guards, rollingSecret, ports, rollingStep)
}

// stepNow returns the number of the current step.
func stepNow() int64 { return time.Now().Unix() / int64(rollingStep.Seconds()) }

// present returns the current knocks of a door, in the form that `knockwall knock` takes.
// The program under test computes them.
func present(l *lab.Lab, rules, door string) []string {
	l.T.Helper()
	cmd := lab.Knockwall("ports", "--config", rules, door)
	cmd.Env = append(os.Environ(), lab.EndAtOnce) // so that it ends within the step
	out, err := cmd.Output()
	lab.Must(l.T, err)
	return strings.Fields(string(out))
}

// Clients that know the secret get in at any time, with an ordinary client program. A
// client that has overheard the knocks of a step does not. Nobody else notices when the
// step changes, and the table does not grow.
func TestRollingKnocks(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "knock")
	lab.NeedsProgram(t, "nft")
	l := lab.New(t)
	rules := l.WriteRules(rollingDoor("roll", 23, "20000-29999") + rollingDoor("half", 24, "30000-30999/udp") + lab.RulesWith("", "10m"))
	for _, port := range []int{22, 23, 24} {
		l.ServeTCP(port)
	}
	d := l.RunFile(rules)
	client := control.NewClient(d.Control)
	before := contents(l)
	var stops []func() int
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		newcomer := 1000
		session := l.Enter(lab.Source(1, server), server)
		stops = append(stops,
			l.Meanwhile(func() error { return lab.ExchangeAndPause(session) }),
			l.Meanwhile(func() error {
				newcomer++
				time.Sleep(20 * time.Millisecond) // otherwise sockets pile up on the server
				return l.OnFirstSYN(lab.Source(newcomer, server), server, lab.Knocks...)
			}))
	}
	type overheard struct {
		knocks []packet.Port
		step   int64
	}
	var heard []overheard
	const steps = 3
	for n := range steps {
		var last overheard
		for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
			last.step, last.knocks = knockInStep(l, t, rules, server)
			source := lab.Client4
			if server.Is6() {
				source = lab.Client6
			}
			if !l.Admits(source, server, 23) {
				t.Fatalf("step %d: refused after knocks", n+1)
			}
			_, err := client.Close(context.Background(), "roll", source.String(), false)
			lab.Must(t, err)
		}
		// The knocks of the former step would be good for clients with slow clocks, but
		// they were used. Knocks of earlier steps mean nothing.
		for i, o := range heard {
			source := lab.Source(100+10*n+i, lab.Server4)
			now := stepNow()
			l.Knock(source, lab.Server4, o.knocks...)
			if now == o.step+1 && stepNow() == now {
				d.WaitFor("replayed", "door=roll", "source="+source.String()+" ")
			}
			if l.AdmitsAtOnce(source, lab.Server4, 23) {
				t.Errorf("step %d: admitted with the knocks of step %d", n+1, i+1)
			}
		}
		heard = append(heard, last)
		knockAcrossTurn(l, t, rules, lab.Source(10+n, lab.Server4))
	}
	for _, stop := range stops {
		if tries := stop(); tries < 20*steps {
			t.Errorf("%d tries of a guest prove too little", tries)
		}
	}
	// The knocks of a step may be the same as others, and then need fewer rules.
	var after map[string]int
	eventually.True(t, "the table has what the rule files stand for in this step, and nothing else", func() bool {
		before["chain"], before["rule"] = chainsAndRules(l, rules)
		after = contents(l)
		return maps.Equal(after, before)
	})
}

// knockInStep sends the current knocks of the door "roll" with the client of knockd, and
// returns them. If the step ends meanwhile, it tries again, because knocks of a former step
// are used up.
func knockInStep(l *lab.Lab, t *testing.T, rules string, server netip.Addr) (step int64, knocks []packet.Port) {
	t.Helper()
	version := "-4"
	if server.Is6() {
		version = "-6"
	}
	for range triesInStep {
		step = stepNow()
		words := present(l, rules, "roll")
		if out, err := l.RunOnClient(lab.NeedsProgram(t, "knock"), append([]string{version, server.String()}, words...)...); err != nil {
			t.Fatalf("knock: %v\n%s", err, out)
		}
		if stepNow() == step {
			return step, lab.ParseKnocks(t, words)
		}
	}
	t.Fatal(tooSlow)
	return 0, nil
}

// knockAcrossTurn sends the first half of the knocks of the door "half" just before the
// step ends, and the rest afterwards. Nobody else knocks at that door.
func knockAcrossTurn(l *lab.Lab, t *testing.T, rules string, source netip.Addr) {
	t.Helper()
	// The second half must come after the table has changed, and before the attempt is too
	// old. (nft lists nothing while windows open all the time: it starts again whenever
	// something changes.)
	const before, after = time.Second, time.Second
	for range triesInStep {
		turn := time.Now().Truncate(rollingStep).Add(rollingStep)
		time.Sleep(time.Until(turn.Add(-before)))
		knocks := lab.ParseKnocks(t, present(l, rules, "half"))
		l.Knock(source, lab.Server4, knocks[:2]...)
		if !time.Now().Before(turn) {
			continue // the step is not known: the machine was too slow
		}
		time.Sleep(time.Until(turn.Add(after)))
		l.Knock(source, lab.Server4, knocks[2:]...)
		if !time.Now().Before(turn.Add(rollingStep)) {
			continue
		}
		if !l.Admits(source, lab.Server4, 24) {
			t.Error("an attempt across the end of a step has failed")
		}
		return
	}
	t.Fatal(tooSlow)
}

// contents counts the objects in the tables of the server, without elements of sets.
func contents(l *lab.Lab) map[string]int {
	l.T.Helper()
	var all struct {
		Nftables []map[string]any `json:"nftables"`
	}
	lab.Must(l.T, json.Unmarshal([]byte(l.Nft("--json", "list", "ruleset")), &all))
	counts := map[string]int{}
	for _, object := range all.Nftables {
		for kind := range object {
			counts[kind]++
		}
	}
	delete(counts, "metainfo")
	if counts["rule"] == 0 || counts["set"] == 0 {
		l.T.Fatalf("what is listed cannot be: %v", counts)
	}
	return counts
}

// chainsAndRules counts those of the table that the rule files stand for now.
func chainsAndRules(l *lab.Lab, files string) (chains, rules int) {
	l.T.Helper()
	var script strings.Builder
	cmd := lab.Knockwall("ruleset", "--config", files)
	cmd.Stdout = &script
	lab.Must(l.T, lab.StartOn(l.Server, cmd))
	lab.Must(l.T, cmd.Wait())
	inChain := false
	for line := range strings.Lines(script.String()) {
		switch {
		case strings.HasPrefix(line, "\tchain "):
			chains++
			inChain = true
		case line == "\t}\n":
			inChain = false
		case inChain && !strings.HasPrefix(line, "\t\ttype filter hook "):
			rules++
		}
	}
	return chains, rules
}

// rollingScript computes the current knocks as the documentation says, and knocks. Its
// variables are SECRET in hex, HOST, and STEP in seconds.
const rollingScript = `
size=$((LAST - FIRST + 1))
n=$(($(date +%s) / STEP))
message=$(printf '\\x%02x' $((n >> 56 & 255)) $((n >> 48 & 255)) $((n >> 40 & 255)) $((n >> 32 & 255)) $((n >> 24 & 255)) $((n >> 16 & 255)) $((n >> 8 & 255)) $((n & 255)))
knocks=()
for ((i = 0; ${#knocks[@]} < LENGTH; i++)); do
  mac=$(printf "$message\\x00\\x00\\x00$(printf '\\x%02x' "$i")" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$SECRET")
  mac=${mac##*= }
  port=$((FIRST + 16#${mac:0:8} % size))
  [[ " ${knocks[*]} " == *" $port "* ]] || knocks+=("$port")
done
echo "${knocks[@]}"
for port in "${knocks[@]}"; do
  (: <"/dev/tcp/$HOST/$port") 2>/dev/null || :
done
`

// A shell and openssl suffice for a client.
func TestRollingKnocksOfAShell(t *testing.T) {
	t.Parallel()
	lab.NeedsProgram(t, "openssl")
	bash := lab.NeedsProgram(t, "bash")
	l := lab.New(t)
	l.ServeTCP(23)
	// There are so few ports that the same port sometimes occurs twice.
	rules := filepath.Join(l.Folder, "rules.hcl")
	lab.Must(t, os.WriteFile(rules, []byte(rollingDoor("roll", 23, "20000-20008")), 0o600))
	d := l.RunFile(rules)
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		source := lab.Client4
		if server.Is6() {
			source = lab.Client6
		}
		for try := 1; ; try++ {
			step := stepNow()
			cmd := exec.Command(bash, "-c", rollingScript)
			cmd.Env = append(os.Environ(), "SECRET="+hex.EncodeToString([]byte(rollingSecret)), "HOST="+server.String(),
				fmt.Sprintf("STEP=%d", int(rollingStep.Seconds())), "FIRST=20000", "LAST=20008", "LENGTH=4")
			var said lab.Output
			cmd.Stdout, cmd.Stderr = &said, &said
			lab.Must(t, lab.StartOn(l.Client, cmd))
			lab.Must(t, cmd.Wait())
			ours := strings.Join(present(l, rules, "roll"), " ")
			if stepNow() != step {
				if try == triesInStep {
					t.Fatal(tooSlow)
				}
				continue // the two may be of different steps
			}
			if strings.TrimSpace(said.String()) != ours {
				t.Errorf("the script knocks at %s, and the command ports prints %s", &said, ours)
			}
			break
		}
		d.WaitFor("opened", "door=roll", "source="+source.String()+" ")
		if !l.Admits(source, server, 23) {
			t.Errorf("%s: refused", server)
		}
	}
}
