package share

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/knockwall/knockwall/internal/lease"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/ruleset"
)

// message is what a member publishes.
type message struct {
	// Run tells apart the runs of a member, whose numbers begin anew.
	Run    string `json:"run"`
	Number uint64 `json:"number,omitempty"` // of the last news
	All    bool   `json:"all,omitempty"`    // with ask and its answer: all that the member knows, and not only what happened at its host
	More   bool   `json:"more,omitempty"`   // the answer has another message
	// Ping is what a member has asked another one to send back. With the answer come the
	// other's clock, in milliseconds since 1970, and its version.
	Ping    string `json:"ping,omitempty"`
	Clock   int64  `json:"clock,omitempty"`
	Version string `json:"version,omitempty"`
	lease.News
}

// The limits of a message. The server's default limit is 1 MiB.
const (
	maxMessage    = 512 << 10 // bytes
	maxStatements = 300       // in one message
	maxText       = 128       // bytes of a name
	maxWord       = 64        // bytes of a key, a grant or a method; the daemon takes no longer one
)

var errMessage = errors.New("it is no message of a member")

// parse parses a message. Nothing in it is trusted.
func parse(data []byte) (m message, err error) {
	if len(data) > maxMessage {
		return m, fmt.Errorf("%w: it has %d bytes", errMessage, len(data))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&m); err != nil {
		return m, errMessage
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return m, errMessage
	}
	if len(m.Statements) > maxStatements || len(m.Used) > maxStatements || len(m.Run) > maxText || len(m.Ping) > maxWord || len(m.Version) > maxText {
		return m, fmt.Errorf("%w: it is too long", errMessage)
	}
	if strings.IndexFunc(m.Version, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return m, fmt.Errorf("%w: its version is none", errMessage)
	}
	for i := range m.Statements {
		s := &m.Statements[i]
		source, err := packet.ParseSource(s.Source)
		// Only one text means a source, or a host could fill the memory of others.
		if err != nil || source.String() != s.Source || source.Addr().Is4In6() || source.IsLinkLocal() || !ruleset.IsDoorName(s.Door) || !ruleset.IsMemberName(s.Host) || s.Stamp <= 0 || !isPlain(s.Person) {
			return m, fmt.Errorf("%w: a window in it is none", errMessage)
		}
	}
	for i := range m.Used {
		u := &m.Used[i]
		if !isWord(u.Method) || !isPlain(u.Person) || u.Key == "" || u.Time.IsZero() {
			return m, fmt.Errorf("%w: a used knock in it is none", errMessage)
		}
	}
	return m, nil
}

func isPlain(p lease.Person) bool {
	return len(p.Name) <= maxText && isWord(p.Key) && isWord(p.Grant) &&
		strings.IndexFunc(p.Name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func isWord(s string) bool {
	return len(s) <= maxWord && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// pieces divides news into parts that fit into a message each.
func pieces(n lease.News) (all []lease.News) {
	for !n.IsEmpty() {
		windows, used := min(len(n.Statements), maxStatements), min(len(n.Used), maxStatements)
		all = append(all, lease.News{Statements: n.Statements[:windows], Used: n.Used[:used]})
		n = lease.News{Statements: n.Statements[windows:], Used: n.Used[used:]}
	}
	return all
}
