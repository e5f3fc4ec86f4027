package share

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/lease"
)

func TestMessagesThatNoMemberSends(t *testing.T) {
	window := `{"run":"x","windows":[{"door":"ssh","source":"192.0.2.1","host":"b","stamp":1,"left":1000}]}`
	if m, err := parse([]byte(window)); err != nil || len(m.Statements) != 1 {
		t.Fatalf("a good one: %+v, %v", m, err)
	}
	for _, text := range []string{
		"", "garbage", "[]", window + window, strings.Repeat(" ", maxMessage) + window,
		strings.Replace(window, `"ssh"`, `"a door"`, 1),
		strings.Replace(window, `"192.0.2.1"`, `"alice"`, 1),
		strings.Replace(window, `"192.0.2.1"`, `"192.0.2.1/32"`, 1), // another text for the same
		strings.Replace(window, `"192.0.2.1"`, `"::ffff:192.0.2.1"`, 1),
		strings.Replace(window, `"b"`, `"b.c"`, 1),
		strings.Replace(window, `"b"`, `""`, 1),
		strings.Replace(window, `"stamp":1`, `"stamp":-1`, 1),
		strings.Replace(window, `"stamp":1`, `"stamp":1e300`, 1),
		strings.Replace(window, `"left":1000`, `"person":"\u001b[31m"`, 1),
		strings.Replace(window, `"left":1000`, `"key":"a b"`, 1),
		`{"run":"x","windows":[` + strings.Repeat(`{},`, maxStatements) + `{}]}`,
		strings.Replace(window, `"192.0.2.1"`, `"169.254.1.2"`, 1),
		strings.Replace(window, `"192.0.2.1"`, `"169.254.0.0/16"`, 1),
		strings.Replace(window, `"192.0.2.1"`, `"fe80::1"`, 1),
		strings.Replace(window, `"192.0.2.1"`, `"fe80::1%lo"`, 1),
		strings.Replace(window, `"left":1000`, `"person":"`+strings.Repeat("x", 129)+`"`, 1),
		strings.Replace(window, `"left":1000`, `"key":"`+strings.Repeat("x", 65)+`"`, 1),
		strings.Replace(window, `"left":1000`, `"grant":"`+strings.Repeat("x", 65)+`"`, 1),
		`{"run":"x","used":[{"method":"` + strings.Repeat("x", 65) + `","key":"k","time":"2026-01-01T00:00:00Z"}]}`,
		`{"run":"x","used":[{"method":"keys","key":"","time":"2026-01-01T00:00:00Z"}]}`,
		`{"run":"x","used":[{"method":"keys","key":"k"}]}`,
	} {
		if m, err := parse([]byte(text)); err == nil {
			t.Errorf("%.200s is taken as %+v", text, m)
		}
	}
}

// What is too long for a message comes in pieces, all of it, and each can be parsed.
func TestNewsInPieces(t *testing.T) {
	var n lease.News
	long, word := strings.Repeat("x", maxText), strings.Repeat("x", maxWord)
	for i := range 2*maxStatements + 1 {
		n.Statements = append(n.Statements, lease.Statement{Door: "ssh", Source: fmt.Sprintf("2001:db8:ffff:ffff:ffff:ffff:ffff:%x", i+1), Host: strings.Repeat("h", 63),
			Stamp: 1 << 60, Left: 86400000, Person: lease.Person{Name: long, Key: word, Grant: word}})
	}
	for range maxStatements + 1 {
		n.Used = append(n.Used, lease.Used{Method: word, Time: time.Unix(1, 0), Person: lease.Person{Name: long, Key: word, Grant: word}})
	}
	windows, used := 0, 0
	for _, piece := range pieces(n) {
		data, err := json.Marshal(message{Run: "x", News: piece})
		if err != nil {
			t.Fatal(err)
		}
		m, err := parse(data)
		if err != nil {
			t.Fatalf("%d bytes: %v", len(data), err)
		}
		windows += len(m.Statements)
		used += len(m.Used)
	}
	if windows != len(n.Statements) || used != len(n.Used) {
		t.Errorf("%d windows and %d used knocks arrive, of %d and %d", windows, used, len(n.Statements), len(n.Used))
	}
}

func TestWhoMayPublishWhere(t *testing.T) {
	c := &Companion{Options: Options{Name: "a"}, prefix: "knockwall.prod."}
	for subject, want := range map[string]string{
		"knockwall.prod.b.news": "b news", "knockwall.prod.b.to.a": "b to.a", "knockwall.prod.b.ask": "b ask",
		"knockwall.prod.a.news": "a news", "knockwall.test.b.news": "", "knockwall.prod.b": "", "knockwall.prod..news": "", "x": "",
	} {
		name, what, ok := c.sender(subject)
		if got := name + " " + what; ok != (want != "") || ok && got != want {
			t.Errorf("%s is of %q, %t", subject, got, ok)
		}
	}
}

// FuzzMessage parses what other members may send, and merges what can be parsed.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"run":"x","number":3,"windows":[{"door":"ssh","source":"192.0.2.1","host":"b","stamp":1,"left":1000}]}`))
	f.Add([]byte(`{"run":"x","windows":[{"door":"ssh","source":"2001:db8::/64","host":"a","stamp":9000000000000,"closed":true}],"used":[{"method":"keys","key":"SHA256:x","time":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parse(data)
		if err != nil {
			return
		}
		now := time.Unix(1_800_000_000, 0)
		member := lease.NewMember("a", func() time.Time { return now })
		const window = 30 * time.Second
		member.StateBegins()
		member.SetDoors(map[string]time.Duration{"ssh": window}, 1<<17)
		member.StateIsKnown()
		_, _, _ = member.Told("b", &m.News)
		_, _, _ = member.Told("b", &m.News)
		for due := member.Due(10); len(due) > 0; due = member.Due(10) {
			for _, a := range due {
				if a.Used == nil && (a.Door != "ssh" || a.Left > window) {
					t.Errorf("%q makes %+v", data, a)
				}
			}
		}
	})
}
