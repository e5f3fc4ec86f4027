package ruleset

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Only the program reads the arguments of a command. A value stays one argument, and
// variables in it are not expanded again.
func TestValuesStayWithinTheirArgument(t *testing.T) {
	for _, test := range []struct {
		name, command string
		values        Variables
		want          []string
	}{
		{"nothing to put in", `["/bin/true"]`, nil, []string{"/bin/true"}},
		{"each of them", `["/bin/true", "${door}", "${source}", "${port}"]`,
			Variables{"door": "ssh", "source": "192.0.2.1", "port": "1840/tcp"},
			[]string{"/bin/true", "ssh", "192.0.2.1", "1840/tcp"}},
		{"within text, and twice", `["/bin/true", "<${source}> at ${door}: ${source}"]`,
			Variables{"door": "ssh", "source": "2001:db8::1"},
			[]string{"/bin/true", "<2001:db8::1> at ssh: 2001:db8::1"}},
		{"what a shell would read", `["/bin/true", "x${source}y"]`,
			Variables{"source": "; rm -rf / $(id) `id` \"' ${door} %IP%\n"},
			[]string{"/bin/true", "x; rm -rf / $(id) `id` \"' ${door} %IP%\ny"}},
		{"values that are not there", `["/bin/true", "a${port}b", "${port}"]`, Variables{"door": "ssh"},
			[]string{"/bin/true", "ab", ""}},
		{"what is to stay as it is", `["/bin/true", "$${source} %%{if} $1 \"q\" \\"]`, Variables{"source": "x"},
			[]string{"/bin/true", `${source} %{if} $1 "q" \`}},
		{"numbers, and no text", `["/bin/true", 22, -1.5, ""]`, nil, []string{"/bin/true", "22", "-1.5", ""}},
		{"text of several lines", "[\"/bin/true\", <<EOT\none ${door}\ntwo\nEOT\n]", Variables{"door": "ssh"},
			[]string{"/bin/true", "one ssh\ntwo\n"}},
		{"a mere name", `["true", "é"]`, nil, []string{"true", "é"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := doorWith(t, "sequence = [4113, \"27911/udp\", 1840]\non_open {\ncommand = "+test.command+"\n}")
			for range 2 { // Expand does not change the command
				if diff := cmp.Diff(test.want, c.Doors[0].OnOpen.Expand(test.values)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestCommandsHaveTheirTime(t *testing.T) {
	c := doorWith(t, `sequence = [4113, "27911/udp", 1840]
on_open {
  command = ["/bin/true"]
}
on_close {
  command = ["/bin/true"]
  timeout = "10m"
}`)
	if d := c.Doors[0]; d.OnOpen.Timeout != 10*time.Second || d.OnClose.Timeout != 10*time.Minute {
		t.Errorf("on_open has %s, on_close %s", d.OnOpen.Timeout, d.OnClose.Timeout)
	}
	if c := doorWith(t, `sequence = [4113, "27911/udp", 1840]`); c.Doors[0].OnOpen != nil || c.HasCommands() {
		t.Error("there are commands where none are written")
	}
}
