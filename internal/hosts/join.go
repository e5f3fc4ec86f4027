package hosts

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/invitation"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
	"github.com/knockwall/knockwall/internal/secret"
	"github.com/knockwall/knockwall/ruleset"
)

// Join adds a block for an invitation to the hosts file at path, and makes the file if there
// is none. A block of the same host that says the same stays, and added is false. The error
// says that another block of this host says something else. read is the file as it was, if
// it has errors. The file gets mode 0600.
func Join(path string, i *invitation.Invitation) (added bool, read *ruleset.Loaded, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, nil, err
	}
	at := len(text) // of the new block
	if err == nil {
		f := parse(path)
		if f.loaded.Diagnostics.HasErrors() {
			return false, f.loaded, errors.New("the hosts file has errors")
		}
		if n := f.fitting(i.Host); n >= 0 {
			b := f.blocks[n]
			if slices.ContainsFunc(b.Labels, func(label string) bool { return strings.EqualFold(label, i.Host) }) {
				switch h := b.host(f.loaded.Reader()); {
				case f.loaded.Diagnostics.HasErrors():
					return false, f.loaded, errors.New("the hosts file has errors")
				case h.says(i):
					return false, nil, nil
				}
				return false, nil, fmt.Errorf("%s line %d has another block for %s: delete it, or join under another name (--as NAME)",
					path, b.DefRange.Start.Line, i.Host)
			}
			at = beginning(text, b.DefRange.Start.Byte) // before the pattern, as the first block that fits is used
		}
	}
	block := fmt.Sprintf("host %q {\n%s}\n", i.Host, body(i))
	before, after := string(text[:at]), string(text[at:])
	if before != "" && !strings.HasSuffix(before, "\n") {
		before += "\n"
	}
	if before != "" && !strings.HasSuffix(before, "\n\n") {
		before += "\n"
	}
	if after != "" {
		after = "\n" + after
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, nil, err
	}
	return true, nil, durable.Replace(path, []byte(before+block+after), 0o600)
}

// beginning returns the place where a block begins, with the comments right above it.
func beginning(text []byte, at int) int {
	for {
		line := strings.LastIndexByte(string(text[:at]), '\n') + 1
		above := strings.LastIndexByte(string(text[:max(line-1, 0)]), '\n') + 1
		comment := strings.TrimSpace(string(text[above:max(line-1, above)]))
		if line == 0 || !strings.HasPrefix(comment, "#") && !strings.HasPrefix(comment, "//") {
			return line
		}
		at = above
	}
}

// body returns the attributes of a block.
func body(i *invitation.Invitation) string {
	var b strings.Builder
	if i.Address != "" {
		fmt.Fprintf(&b, "  address  = %q\n", i.Address)
	}
	switch {
	case i.Keyed != nil:
		fmt.Fprintf(&b, "  identity = %q\n  door     = %q\n", i.Keyed.Identity, i.Door)
		if i.Keyed.Port != DefaultPort {
			fmt.Fprintf(&b, "  port     = \"%d/udp\"\n", i.Keyed.Port)
		}
	case i.Rolling != nil:
		fmt.Fprintf(&b, "  rolling {\n    secret = %q\n    length = %d\n    ports  = %q\n    step   = \"%ds\"\n  }\n",
			i.Rolling.Secret, i.Rolling.Length, i.Rolling.Ports, int(i.Rolling.Step.Seconds()))
	case i.Password != nil:
		fmt.Fprintf(&b, "  otp {\n    port        = \"%d/udp\"\n    open_secret = %q\n  }\n", i.Password.Port, i.Password.Secret)
	default:
		var knocks []string
		for _, p := range i.Knocks {
			knocks = append(knocks, fmt.Sprintf("%q", p))
		}
		fmt.Fprintf(&b, "  knock    = [%s]\n", strings.Join(knocks, ", "))
	}
	return b.String()
}

// says reports whether a host is knocked at where and how an invitation says.
func (h *Host) says(i *invitation.Invitation) bool {
	if !strings.EqualFold(cmp.Or(h.Address, i.Host), cmp.Or(i.Address, i.Host)) {
		return false
	}
	switch {
	case i.Keyed != nil:
		return h.Keyed != nil && h.Keyed.Identity == i.Keyed.Identity && h.Keyed.Door == i.Door && h.Keyed.Port == i.Keyed.Port
	case i.Rolling != nil:
		m, ok := h.Method.(*rolling.Rolling)
		return ok && m.Secret.Equal(secret.New([]byte(i.Rolling.Secret))) && m.Length == i.Rolling.Length && m.Range == i.Rolling.Ports && m.Step == i.Rolling.Step
	case i.Password != nil:
		m, ok := h.Method.(*passwords.OTP)
		return ok && m.Open.Equal(secret.New([]byte(i.Password.Secret))) && m.Port.Number == i.Password.Port
	}
	m, ok := h.Method.(*fixed.Sequence)
	return ok && slices.Equal(m.Sequences[0], i.Knocks)
}
