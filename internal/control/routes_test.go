package control_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/audit"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/host"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// opens returns the sources with an open window, each with its door.
func opens(d *daemon) []string {
	var all []string
	for _, w := range d.Wall.Windows(wall.WindowQuery{}) {
		all = append(all, w.Door+" "+w.Source.String())
	}
	return all
}

// before is the windows at the beginning.
var before = []string{"ssh 192.0.2.1"}

func wantWindows(t *testing.T, s *served, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, opens(s.daemon)); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
	}
}

// wantAnswer checks that an answer is a success, and parses it.
func wantAnswer(t *testing.T, response *http.Response, body string, to any) {
	t.Helper()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("answered with %s, %v: %s", response.Status, response.Header, body)
	}
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
}

// One answer has so many windows at most. A client asks for the next ones until it has what it
// wants.
func TestManyWindowsTakeSeveralAnswers(t *testing.T) {
	const many = control.MaxWindows + 3
	var windows []nft.Window
	for i := range many {
		source := netip.AddrFrom4([4]byte{20 + byte(i%200), byte(i >> 16), byte(i >> 8), byte(i)})
		windows = append(windows, nft.Window{Door: "ssh", Source: packet.SourcePrefix{IPv4: 32, IPv6: 128}.Of(source), Left: time.Hour})
	}
	s := serveWith(t, "", windows)
	_, body := s.ask(t, http.MethodGet, "/v1/windows", "")
	var answered []wall.WindowStatus
	if err := json.Unmarshal([]byte(body), &answered); err != nil || len(answered) != control.MaxWindows {
		t.Fatalf("one answer has %d windows, want %d: %v", len(answered), control.MaxWindows, err)
	}
	client := control.NewClient(s.path)
	for limit, want := range map[int]int{0: many, control.MaxWindows + 2: control.MaxWindows + 2, many + 1: many, 2: 2} {
		status, err := client.Status(t.Context(), wall.WindowQuery{Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if len(status.Windows) != want || (status.WindowsNext == "") != (want == many) {
			t.Errorf("with the limit %d there are %d windows and then %q, want %d", limit, len(status.Windows), status.WindowsNext, want)
		}
		if !slices.IsSortedFunc(status.Windows, func(a, b wall.WindowStatus) int { return a.Source.Addr().Compare(b.Source.Addr()) }) {
			t.Errorf("with the limit %d they are out of order", limit)
		}
	}
}

func TestWindowsAreListed(t *testing.T) {
	s := serve(t)
	response, body := s.ask(t, http.MethodGet, "/v1/windows", "")
	var windows []wall.WindowStatus
	wantAnswer(t, response, body, &windows)
	if len(windows) != 1 || windows[0].Door != "ssh" || windows[0].Source.String() != "192.0.2.1" ||
		windows[0].LeftSeconds > 3600 || windows[0].LeftSeconds < 3000 {
		t.Errorf("%s", body)
	}
	if _, err := s.Wall.Close("ssh", "192.0.2.1", false); err != nil {
		t.Fatal(err)
	}
	if _, body := s.ask(t, http.MethodGet, "/v1/windows", ""); body != "[]\n" {
		t.Errorf("where none is open: %s", body)
	}
}

func TestAWindowIsOpenedByHand(t *testing.T) {
	for _, test := range []struct {
		body, source string
		seconds      float64
	}{
		{`{"door": "ssh", "source": "192.0.2.7"}`, "192.0.2.7", 3600}, // the door's own time
		{`{"door": "ssh", "source": "192.0.2.7", "window": "1m30s"}`, "192.0.2.7", 90},
		{`{"door": "ssh", "source": "192.0.2.7", "window": ""}`, "192.0.2.7", 3600},
		{`{"door": "ssh", "source": "::ffff:192.0.2.7"}`, "192.0.2.7", 3600},
		{`{"door": "ssh", "source": "2001:db8::7"}`, "2001:db8::/64", 3600},
		{`{"door": "ssh", "source": "2001:db8::/64"}`, "2001:db8::/64", 3600},
		{`{"door": "ssh", "source": "192.0.2.1", "window": "2h"}`, "192.0.2.1", 7200}, // this window is open already
		{" \n{\"door\": \"ssh\", \"source\": \"192.0.2.7\"}\n\n", "192.0.2.7", 3600},
	} {
		t.Run(test.body, func(t *testing.T) {
			s := serve(t)
			response, body := s.ask(t, http.MethodPost, "/v1/windows", test.body)
			var got wall.WindowStatus
			wantAnswer(t, response, body, &got)
			if got.Door != "ssh" || got.Source.String() != test.source || got.LeftSeconds != test.seconds {
				t.Errorf("opened %s", body)
			}
			want := slices.Compact(append(slices.Clone(before), "ssh "+test.source))
			wantWindows(t, s, want...)
			last := s.History.Past()[len(s.History.Past())-1]
			if last.Source.String() != test.source || last.Code != audit.CodeManual || last.Window.Seconds() != test.seconds {
				t.Errorf("the trail says %s", last)
			}
		})
	}
}

func TestAWindowIsClosedByHand(t *testing.T) {
	s := serve(t)
	if _, err := s.Wall.Open("ssh", "2001:db8::7", 0); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path, source string
		closed       bool
		ended        int
	}{
		{"/v1/windows/ssh/2001:db8::%2F64", "2001:db8::/64", true, 0},
		{"/v1/windows/ssh/192.0.2.1?sessions=false", "192.0.2.1", true, 0},
		{"/v1/windows/ssh/192.0.2.99?sessions=true", "192.0.2.99", false, 3},
		{"/v1/windows/ssh/192.0.2.2?sessions=1", "192.0.2.2", true, 3},
		{"/v1/windows/ssh/2001:db8:1::/64", "2001:db8:1::/64", true, 0},
	} {
		response, body := s.ask(t, http.MethodDelete, test.path, "")
		var got wall.Closing
		wantAnswer(t, response, body, &got)
		if got.Door != "ssh" || got.Source.String() != test.source || got.Closed != test.closed || got.Ended != test.ended {
			t.Errorf("%s: %s", test.path, body)
		}
	}
	wantWindows(t, s)
}

// wrong are requests with errors, each with its status. None of them changes anything.
var wrong = []struct {
	name, method, path, body string
	code                     int
	says                     string
}{
	{"an unknown door", "POST", "/v1/windows", `{"door": "shh", "source": "192.0.2.7"}`, 404, `there is no door "shh"; there is "ssh"`},
	{"no door", "POST", "/v1/windows", `{"source": "192.0.2.7"}`, 404, `there is no door ""`},
	{"an empty body", "POST", "/v1/windows", ``, 404, `there is no door ""`},
	{"no source", "POST", "/v1/windows", `{"door": "ssh"}`, 400, `"" is not an IP address`},
	{"a name", "POST", "/v1/windows", `{"door": "ssh", "source": "example.org"}`, 400, `"example.org" is not an IP address`},
	{"a port with it", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7:22"}`, 400, "is not an IP address"},
	{"a zone", "POST", "/v1/windows", `{"door": "ssh", "source": "2001:db8::1%eth0"}`, 400, "%eth0"},
	{"a wider network", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.0/24"}`, 400, "192.0.2.0/24"},
	{"everybody", "POST", "/v1/windows", `{"door": "ssh", "source": "0.0.0.0/0"}`, 400, "0.0.0.0"},
	{"every IPv6 address", "POST", "/v1/windows", `{"door": "ssh", "source": "::/0"}`, 400, "::"},
	{"a long prefix", "POST", "/v1/windows", `{"door": "ssh", "source": "2001:db8::7/64"}`, 400, "2001:db8::/64"},
	{"loopback", "POST", "/v1/windows", `{"door": "ssh", "source": "127.0.0.1"}`, 400, "cannot be a source"},
	{"no time", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "soon"}`, 400, `window is a time such as "30s" or "2m", not "soon"`},
	{"a time without unit", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "30"}`, 400, "window is a time"},
	{"a negative time", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "-5s"}`, 400, "window is a time"},
	{"time zero", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "0s"}`, 400, "window is a time"},
	{"too short a time", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "1ms"}`, 400, "100ms to 24h"},
	{"too long a time", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "1000h"}`, 400, "100ms to 24h"},
	{"a time beyond all bounds", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": "99999999999999h"}`, 400, "window is a time"},
	{"an unknown field", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "windows": "30s"}`, 400, `there is no "windows", only "door", "source", "window"`},
	{"a number for a time", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7", "window": 30}`, 400, `not the JSON that this path takes: "window" takes a text in quotes, and not a number`},
	{"a list for a door", "POST", "/v1/windows", `{"door": ["ssh"], "source": "192.0.2.7"}`, 400, `"door" takes a text in quotes, and not a list`},
	{"an answer for a time", "POST", "/v1/reload", `{"confirm": true}`, 400, `"confirm" takes a text in quotes, and not true or false`},
	{"two values", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"} {"door": "ssh", "source": "192.0.2.8"}`, 400, "more than one JSON value"},
	{"something after the value", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"}}`, 400, "more than one JSON value"},
	{"an array", "POST", "/v1/windows", `[{"door": "ssh", "source": "192.0.2.7"}]`, 400, "not the JSON that this path takes: it is not an object"},
	{"a string", "POST", "/v1/windows", `"ssh"`, 400, "not the JSON that this path takes"},
	{"no JSON", "POST", "/v1/windows", `door=ssh&source=192.0.2.7`, 400, "not the JSON that this path takes: there is a mistake at character 1"},
	{"half a value", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"`, 400, "not the JSON that this path takes: it ends too early"},
	{"5 KiB", "POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"` + strings.Repeat(" ", 5<<10) + `}`, 400, "longer than 4096 bytes"},
	{"a byte too many", "POST", "/v1/windows", pad(`{"door": "ssh", "source": "192.0.2.7"}`, control.MaxBody+1), 400, "longer than 4096 bytes"},
	{"invalid UTF-8 in the door", "POST", "/v1/windows", "{\"door\": \"ss\xff\", \"source\": \"192.0.2.7\"}", 404, "there is no door"},
	{"invalid UTF-8 in the source", "POST", "/v1/windows", "{\"door\": \"ssh\", \"source\": \"192.0.2.7\xff\"}", 400, "is not an IP address"},
	{"invalid UTF-8 instead of JSON", "POST", "/v1/windows", "\xff\xfe", 400, "not the JSON that this path takes"},
	{"deep nesting", "POST", "/v1/windows", `{"door": ` + strings.Repeat("[", 4000), 400, "not the JSON that this path takes"},
	{"deep nesting that ends", "POST", "/v1/windows", `{"door": ` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`, 400, "not the JSON that this path takes"},

	{"closing at an unknown door", "DELETE", "/v1/windows/shh/192.0.2.1", "", 404, `there is no door "shh"`},
	{"closing what is not open", "DELETE", "/v1/windows/ssh/192.0.2.99", "", 404, "the door ssh is not open for 192.0.2.99"},
	{"closing for nobody", "DELETE", "/v1/windows/ssh/", "", 400, "is not an IP address"},
	{"closing for a name", "DELETE", "/v1/windows/ssh/example.org", "", 400, "is not an IP address"},
	{"closing for a network", "DELETE", "/v1/windows/ssh/192.0.2.0/24", "", 400, "192.0.2.0/24"},
	{"sessions that are neither", "DELETE", "/v1/windows/ssh/192.0.2.1?sessions=maybe", "", 400, `sessions is true or false, not "maybe"`},

	{"a trial that is no time", "POST", "/v1/reload", `{"confirm": "later"}`, 400, `confirm is a time such as "30s" or "2m", not "later"`},
	{"too short a trial", "POST", "/v1/reload", `{"confirm": "1ms"}`, 400, "a trial takes 1s to 1h, and not 1ms"},
	{"too long a trial", "POST", "/v1/reload", `{"confirm": "61m"}`, 400, "a trial takes 1s to 1h, and not 1h1m"},
	{"a reload with a path", "POST", "/v1/reload", `{"config": "/tmp/mine.hcl"}`, 400, `there is no "config", only "confirm"`},
	{"an array to reload", "POST", "/v1/reload", `[]`, 400, "not the JSON that this path takes"},
	{"nothing to confirm", "POST", "/v1/confirm", ``, 409, "no trial is under way"},
	{"a body to confirm", "POST", "/v1/confirm", `{"confirm": true}`, 400, `there is no "confirm", as it takes nothing`},
	{"nothing to revert", "POST", "/v1/revert", ``, 409, "no trial is under way"},
	{"a body to revert", "POST", "/v1/revert", `{"confirm": true}`, 400, `there is no "confirm", as it takes nothing`},
	{"a session that is none", "POST", "/v1/reload?session=here", ``, 400, `session is the value of SSH_CONNECTION, not "here"`},
	{"down with a body", "POST", "/v1/down", `{"table": "knockwall"}`, 400, `there is no "table", as it takes nothing`},
	{"down with garbage", "POST", "/v1/down", `down!`, 400, "not the JSON that this path takes"},
	{"following perhaps", "GET", "/v1/events?follow=perhaps", "", 400, `follow is true or false, not "perhaps"`},
	{"events of a name", "GET", "/v1/events?source=example.org", "", 400, `source is an IP address or a prefix, not "example.org"`},
	{"no number of windows", "GET", "/v1/status?limit=few", "", 400, `limit is the number of windows, not "few"`},
	{"windows after nothing", "GET", "/v1/windows?after=192.0.2.7", "", 400, `"192.0.2.7" is not a door and a source, such as ssh/192.0.2.7`},
	{"windows after no source", "GET", "/v1/status?after=ssh/here", "", 400, `"ssh/here" is not a door and a source`},
	{"windows of no source", "GET", "/v1/status?source=here", "", 400, `source is an IP address or a prefix, not "here"`},
	{"fewer events than none", "GET", "/v1/events?last=-1", "", 400, `last is the number of events, not "-1"`},
	{"events of too many", "GET", "/v1/events?source=::1" + strings.Repeat("&source=::1", 64), "", 400, "at most 64 sources"},

	{"explaining nobody", "GET", "/v1/explain/", "", 400, `"" is not an IP address`},
	{"explaining a name", "GET", "/v1/explain/example.org", "", 400, `"example.org" is not an IP address`},
	{"explaining an address with a zone", "GET", "/v1/explain/2001:db8::1%25eth0", "", 400, "only link-local addresses have a zone"},
	{"explaining nobody who can come", "GET", "/v1/explain/127.0.0.1", "", 400, "127.0.0.1 cannot be a source"},
	{"explaining a network", "GET", "/v1/explain/192.0.2.0/24", "", 400, "192.0.2.0/24"},
	{"explaining twice", "GET", "/v1/explain/192.0.2.7/192.0.2.8", "", 400, "is not an IP address"},
	{"an explanation that is posted", "POST", "/v1/explain/192.0.2.7", "", 405, "/v1/explain/192.0.2.7 takes GET, HEAD, not POST"},

	{"an unknown path", "GET", "/v1/statuses", "", 404, "there is nothing at /v1/statuses: GET / lists what there is"},
	{"another version", "GET", "/v2/status", "", 404, "there is nothing at /v2/status"},
	{"a path below", "GET", "/v1/status/ssh", "", 404, "there is nothing at /v1/status/ssh"},
	{"a path that changes nothing", "POST", "/v1", "", 404, "there is nothing at /v1"},
	{"a window that is posted", "POST", "/v1/windows/ssh/192.0.2.7", `{}`, 405, "takes DELETE, not POST"},
	{"a status that is posted", "POST", "/v1/status", "", 405, "/v1/status takes GET, HEAD, not POST"},
	{"a status that is deleted", "DELETE", "/v1/status", "", 405, ", not DELETE"},
	{"all windows deleted", "DELETE", "/v1/windows", "", 405, "/v1/windows takes GET, HEAD, POST, not DELETE"},
	{"a reload that is only looked at", "GET", "/v1/reload", "", 405, "/v1/reload takes POST, not GET"},
	{"down that is only looked at", "GET", "/v1/down", "", 405, "/v1/down takes POST, not GET"},
	{"metrics that are posted", "POST", "/metrics", "", 405, "takes GET, HEAD, not POST"},
	{"a method of its own", "OPEN", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"}`, 405, ", not OPEN"},
}

// pad extends a body with spaces to a length.
func pad(body string, length int) string { return body + strings.Repeat(" ", length-len(body)) }

func TestWrongRequestsAreRefusedInJSONAndChangeNothing(t *testing.T) {
	s := serve(t)
	for _, test := range wrong {
		t.Run(test.name, func(t *testing.T) {
			past := len(s.History.Past())
			response, body := s.ask(t, test.method, test.path, test.body)
			wantRefusal(t, response, body, test.code, test.says)
			control.NoGo(t, string(body))
			wantWindows(t, s, before...)
			if now := s.History.Past(); len(now) != past {
				t.Errorf("the trail goes on: %s", now[len(now)-1])
			}
			if test.code == http.StatusMethodNotAllowed && response.Header.Get("Allow") == "" {
				t.Error("no header says which methods there are")
			}
		})
	}
}

func TestPathsThatAreNotWrittenOutAreUnknown(t *testing.T) {
	// A client that follows a redirect could do something else: close the window of
	// another door.
	s := serve(t)
	for _, test := range []struct{ method, path string }{
		{"GET", "//v1/status"},
		{"GET", "/v1//status"},
		{"GET", "/v1/./status"},
		{"GET", "/v1/x/../status"},
		{"DELETE", "/v1/windows/../reload"},
		{"DELETE", "/v1/windows//192.0.2.1"},
		{"DELETE", "/v1/windows/ssh"},
		{"GET", "//nothing"},
	} {
		response, body := s.ask(t, test.method, test.path, "")
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s: %s", test.method, test.path, response.Status)
			continue
		}
		wantRefusal(t, response, body, http.StatusNotFound)
	}
	wantWindows(t, s, before...)
}

func TestTheLongestBodyIsTaken(t *testing.T) {
	s := serve(t)
	response, body := s.ask(t, http.MethodPost, "/v1/windows", pad(`{"door": "ssh", "source": "192.0.2.7"}`, control.MaxBody))
	wantAnswer(t, response, body, &wall.WindowStatus{})
}

func TestLargeHeadersAreRefused(t *testing.T) {
	s := serve(t)
	for size, want := range map[int]int{64 << 10: http.StatusRequestHeaderFieldsTooLarge, 4 << 10: http.StatusOK} {
		response, body := s.askWith(t, http.MethodGet, "/v1/status", "", http.Header{"Padding": {strings.Repeat("x", size)}})
		if response.StatusCode != want {
			t.Errorf("%d bytes: %s, want %d: %s", size, response.Status, want, body)
		}
	}
}

func TestWhatTheKernelRefusesIsSaid(t *testing.T) {
	s := serve(t)
	s.kernel.fail(errors.New("the table is gone"))
	for _, test := range []struct{ method, path, body string }{
		{"GET", "/v1/status", ""},
		{"POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"}`},
		{"DELETE", "/v1/windows/ssh/192.0.2.1", ""},
	} {
		response, body := s.ask(t, test.method, test.path, test.body)
		wantRefusal(t, response, body, http.StatusInternalServerError, "the table is gone")
	}
	wantWindows(t, s, before...)
}

func TestMetricsThatCannotBeHadAreAnErrorLikeAnyOther(t *testing.T) {
	s := serve(t)
	s.kernel.fail(errors.New("the table is gone"))
	response, body := s.ask(t, http.MethodGet, "/metrics", "")
	wantRefusal(t, response, body, http.StatusInternalServerError, "the table is gone")
}

func TestTooManyWhoAskForMetricsAreRefusedLikeAnybody(t *testing.T) {
	s := serve(t)
	s.kernel.mu.Lock() // makes the requests in progress wait
	release := sync.OnceFunc(s.kernel.mu.Unlock)
	defer release()
	type answer struct {
		response *http.Response
		body     string
	}
	answers := make(chan answer)
	var all sync.WaitGroup
	defer all.Wait()
	defer release()
	const many = 20
	for range many {
		all.Go(func() {
			response, body := s.ask(t, http.MethodGet, "/metrics", "")
			answers <- answer{response, body}
		})
	}
	first := <-answers
	wantRefusal(t, first.response, first.body, http.StatusServiceUnavailable)
	release()
	for range many - 1 {
		<-answers
	}
}

func TestTooManyWhoReadLongAnswersSlowlyAreRefused(t *testing.T) {
	s := serve(t)
	s.kernel.mu.Lock() // keeps the requests in progress unanswered
	release := sync.OnceFunc(s.kernel.mu.Unlock)
	var all sync.WaitGroup
	defer all.Wait()
	defer release()
	codes := make(chan int, control.MaxAnswering+1)
	for range control.MaxAnswering + 1 {
		all.Go(func() {
			response, _ := s.ask(t, http.MethodGet, "/v1/status", "")
			codes <- response.StatusCode
		})
	}
	if code := <-codes; code != http.StatusServiceUnavailable { // the others are in progress by now
		t.Fatalf("the first to be answered has %d", code)
	}
	var refused sync.WaitGroup // in parallel, because each waits for a while
	for _, path := range []string{"/v1/status", "/v1/windows", "/v1/events", "/v1/events?follow=false"} {
		refused.Go(func() {
			response, body := s.ask(t, http.MethodGet, path, "")
			wantRefusal(t, response, body, http.StatusServiceUnavailable)
		})
	}
	refused.Wait()
	// Followers are counted separately.
	s.follow(t).skip(t)
	release()
	for range control.MaxAnswering {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one that was let in has %d", code)
		}
	}
}

func TestReload(t *testing.T) {
	s := serve(t)
	for _, test := range []struct {
		body    string
		confirm time.Duration
		want    control.Reloaded
	}{
		{``, 0, control.Reloaded{Doors: 1}},
		{`{}`, 0, control.Reloaded{Doors: 1}},
		{`{"confirm": ""}`, 0, control.Reloaded{Doors: 1}},
		{`{"confirm": "2m"}`, 2 * time.Minute, control.Reloaded{Doors: 1, TrialSeconds: 120}},
	} {
		asked := time.Duration(-1)
		real := s.reload
		s.reload = func(confirm time.Duration) (control.Reloaded, error) {
			asked = confirm
			return real(confirm)
		}
		response, body := s.ask(t, http.MethodPost, "/v1/reload", test.body)
		s.reload = real
		var got control.Reloaded
		wantAnswer(t, response, body, &got)
		if diff := cmp.Diff(test.want, got); diff != "" || asked != test.confirm {
			t.Errorf("reload %s: %s, after a trial of %s", test.body, body, asked)
		}
		past := s.History.Past()
		if e := past[len(past)-1]; e.Kind != audit.Reloaded {
			t.Errorf("reload %s: the trail says %s", test.body, e)
		}
	}
	wantWindows(t, s, before...)
}

func TestReloadTellsWhatIsUnwiseAndWhatHasChanged(t *testing.T) {
	s := serve(t)
	want := control.Reloaded{Doors: 2, Warnings: "Warning: Sequence easy to find\n\n  on ssh.hcl line 3\n",
		Changes: []ruleset.Change{{Door: "web", Kind: ruleset.Added, What: []string{"it guards 443/tcp"}}}}
	s.reload = func(time.Duration) (control.Reloaded, error) { return want, nil }
	response, body := s.ask(t, http.MethodPost, "/v1/reload", "")
	var got control.Reloaded
	wantAnswer(t, response, body, &got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestReloadOfBrokenRulesTellsWhatIsWrong(t *testing.T) {
	s := serve(t)
	const diagnostics = "Error: Not a port\n\n  on ssh.hcl line 2:\n"
	s.reload = func(time.Duration) (control.Reloaded, error) {
		return control.Reloaded{}, &control.RulesError{Diagnostics: diagnostics}
	}
	for _, request := range []string{``, `{"confirm": "2m"}`} {
		response, body := s.ask(t, http.MethodPost, "/v1/reload", request)
		wantRefusal(t, response, body, http.StatusUnprocessableEntity, "the rule files are wrong; the rules in force stay")
		var problem struct{ Diagnostics string }
		if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Diagnostics != diagnostics {
			t.Errorf("diagnostics: %s", body)
		}
	}
	_, err := control.NewClient(s.path).Reload(t.Context(), "")
	wrong, ok := errors.AsType[*control.RulesError](err)
	if !ok || wrong.Diagnostics != diagnostics {
		t.Errorf("the client is told %v", err)
	}
	if status, err := s.Wall.Status(wall.WindowQuery{}); err != nil || status.Trial != nil {
		t.Errorf("status: %+v, %v", status, err)
	}
}

func TestReloadThatTheKernelRefusesIsSaid(t *testing.T) {
	s := serve(t)
	s.reload = func(time.Duration) (control.Reloaded, error) { return control.Reloaded{}, errors.New("no memory") }
	response, body := s.ask(t, http.MethodPost, "/v1/reload", "")
	wantRefusal(t, response, body, http.StatusInternalServerError, "no memory")
}

func TestATrialIsConfirmedOnce(t *testing.T) {
	s := serve(t)
	if response, body := s.ask(t, http.MethodPost, "/v1/reload", `{"confirm": "1h"}`); response.StatusCode != http.StatusOK {
		t.Fatalf("reload: %s", body)
	}
	_, body := s.ask(t, http.MethodGet, "/v1/status", "")
	var status wall.Status
	if err := json.Unmarshal([]byte(body), &status); err != nil || status.Trial == nil ||
		status.Trial.LeftSeconds > 3600 || status.Trial.LeftSeconds < 3000 {
		t.Errorf("status of a trial: %v, %s", err, body)
	}
	// A second trial or reload during a trial is refused.
	for _, request := range []string{``, `{"confirm": "2m"}`} {
		response, body := s.ask(t, http.MethodPost, "/v1/reload", request)
		wantRefusal(t, response, body, http.StatusConflict, "on trial", "knockwall confirm")
	}
	response, body := s.ask(t, http.MethodPost, "/v1/confirm", `{}`)
	wantAnswer(t, response, body, &control.Confirmed{})
	response, body = s.ask(t, http.MethodPost, "/v1/confirm", "")
	wantRefusal(t, response, body, http.StatusConflict, "no trial is under way")
	if status, err := s.Wall.Status(wall.WindowQuery{}); err != nil || status.Trial != nil {
		t.Errorf("after the trial: %+v, %v", status, err)
	}
	response, body = s.ask(t, http.MethodPost, "/v1/reload", "")
	wantAnswer(t, response, body, &control.Reloaded{})
}

func TestATrialIsReverted(t *testing.T) {
	s := serve(t)
	c := control.NewClient(s.path)
	if _, err := c.Reload(t.Context(), "1h"); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Revert(t.Context()); err != nil || r.Down {
		t.Errorf("Revert: %+v, %v", r, err)
	}
	past := s.History.Past()
	if e := past[len(past)-1]; e.Kind != audit.Reloaded || e.Code != audit.CodeReverted || e.Failed {
		t.Errorf("the trail says %s", e)
	}
	if status, err := s.Wall.Status(wall.WindowQuery{}); err != nil || status.Trial != nil {
		t.Errorf("after the trial: %+v, %v", status, err)
	}
	if _, err := c.Revert(t.Context()); err == nil || !strings.Contains(err.Error(), "no trial is under way") {
		t.Errorf("Revert, once more: %v", err)
	}
}

// Whoever reloads by ssh learns that the port of that session is hidden now.
func TestReloadSaysWhetherTheSessionIsShutOut(t *testing.T) {
	s := serve(t)
	for text, want := range map[string][]string{
		"203.0.113.9 50000 192.0.2.1 22":   {"ssh"},
		"203.0.113.9 50000 192.0.2.1 2222": nil,
		"127.0.0.1 50000 127.0.0.1 22":     nil,
	} {
		c := control.NewClient(s.path)
		c.Session, _ = host.ParseSession(text)
		if r, err := c.Reload(t.Context(), ""); err != nil || !slices.Equal(r.Shut, want) {
			t.Errorf("from %s: %+v, %v", text, r, err)
		}
	}
	if r, err := control.NewClient(s.path).Reload(t.Context(), ""); err != nil || r.Shut != nil {
		t.Errorf("without a session: %+v, %v", r, err)
	}
}

func TestWhyAnAddressIsLetInOrIsNotIsExplained(t *testing.T) {
	s := serve(t)
	for _, test := range []struct {
		path, source string
		reason       wall.Why
		in           bool
	}{
		{"192.0.2.1", "192.0.2.1", wall.WindowOpen, true},
		{"::ffff:192.0.2.1", "192.0.2.1", wall.WindowOpen, true},
		{"192.0.2.2", "192.0.2.2", wall.Knocking, false},
		{"192.0.2.7", "192.0.2.7", wall.NeverKnocked, false},
		{"2001:db8::7", "2001:db8::/64", wall.NeverKnocked, false},
		{"2001:db8::/64", "2001:db8::/64", wall.NeverKnocked, false},
		{"2001:db8::%2f64", "2001:db8::/64", wall.NeverKnocked, false},
	} {
		t.Run(test.path, func(t *testing.T) {
			response, body := s.ask(t, http.MethodGet, "/v1/explain/"+test.path, "")
			var all []wall.Explanation
			wantAnswer(t, response, body, &all)
			if len(all) != 1 {
				t.Fatalf("there is one door, and the answer is %s", body)
			}
			e := all[0]
			if e.Door != "ssh" || e.Source.String() != test.source || e.Reason != test.reason || e.In != test.in ||
				e.Since.IsZero() == (test.reason == wall.Knocking) || !strings.HasPrefix(e.Sentence, test.source+" is ") {
				t.Errorf("%s", body)
			}
		})
	}
}

// The daemon takes past events from the same history as the events path.
func TestAnExplanationKnowsThePast(t *testing.T) {
	s := serve(t)
	if _, err := s.Wall.Close("ssh", "192.0.2.1", false); err != nil {
		t.Fatal(err)
	}
	all, err := control.NewClient(s.path).Explain(t.Context(), "192.0.2.1")
	if err != nil || len(all) != 1 || all[0].Reason != wall.WindowClosed || !strings.Contains(all[0].Sentence, "by hand") {
		t.Errorf("Explain: %+v, %v", all, err)
	}
}

func TestThePageNamesEveryReason(t *testing.T) {
	s := serve(t)
	_, text, _ := strings.Cut(page(t, s), "The reasons are")
	text, _, _ = strings.Cut(text, "\n\n")
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z ]+)`").FindAllStringSubmatch(strings.Join(strings.Fields(text), " "), -1) {
		named[m[1]] = true
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../wall/explain.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Why" {
				text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				given[text] = true
			}
		}
		return true
	})
	if diff := cmp.Diff(given, named); diff != "" {
		t.Errorf("reasons (-given +on the page):\n%s", diff)
	}
}

func TestDownSaysWhichUnitWouldStartTheDaemonAgain(t *testing.T) {
	for _, unit := range []string{"", "knockwall.socket"} {
		s := serveAs(t, unit)
		response, body := s.ask(t, http.MethodPost, "/v1/down", "")
		var lowered control.Lowered
		wantAnswer(t, response, body, &lowered)
		if want := (control.Lowered{Table: "knockwall", SocketUnit: unit}); lowered != want || unit == "" && strings.Contains(body, "socket_unit") {
			t.Errorf("where the unit is %q, the answer is %q", unit, body)
		}
		if again, err := control.NewClient(s.path).Down(t.Context()); err != nil || again != lowered {
			t.Errorf("asked again: %+v, %v", again, err)
		}
	}
}

// Down ends Run, and the daemon then ends Serve while it sends the answer.
func TestDownIsAnsweredAlthoughTheDaemonEnds(t *testing.T) {
	for range 20 {
		s := serve(t)
		served := make(chan error, 1)
		go func() {
			<-s.ended // as the command run does
			served <- s.stop()
		}()
		response, body := s.ask(t, http.MethodPost, "/v1/down", "")
		wantAnswer(t, response, body, &control.Lowered{})
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if s.kernel.wallStands() {
			t.Error("the wall stands")
		}
		if _, err := os.Stat(s.path); !os.IsNotExist(err) {
			t.Errorf("the socket is left behind: %v", err)
		}
		if t.Failed() {
			return
		}
	}
}

// Requests can arrive while the daemon ends.
func TestAfterDownNothingIsChangedAnyMore(t *testing.T) {
	s := serve(t)
	if _, err := control.NewClient(s.path).Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ method, path, body string }{
		{"POST", "/v1/windows", `{"door": "ssh", "source": "192.0.2.7"}`},
		{"DELETE", "/v1/windows/ssh/192.0.2.1", ""},
		{"POST", "/v1/reload", ""},
		{"POST", "/v1/reload", `{"confirm": "2m"}`},
		{"POST", "/v1/confirm", ""},
		{"POST", "/v1/revert", ""},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			response, body := s.ask(t, test.method, test.path, test.body)
			wantRefusal(t, response, body, http.StatusServiceUnavailable, "the daemon is stopping")
			if s.kernel.wallStands() {
				t.Error("the wall stands again, and nobody is behind it")
			}
		})
	}
	// A second request for the same thing succeeds.
	if _, err := control.NewClient(s.path).Down(t.Context()); err != nil {
		t.Errorf("down again: %v", err)
	}
}

func TestTheClientAsksForWhatItsMethodsSay(t *testing.T) {
	s := serve(t)
	c, ctx := control.NewClient(s.path), t.Context()
	opened, err := c.Open(ctx, "ssh", "2001:db8::7", "5m")
	if err != nil || opened.Source.String() != "2001:db8::/64" || opened.LeftSeconds != 300 {
		t.Errorf("Open: %+v, %v", opened, err)
	}
	closed, err := c.Close(ctx, "ssh", "2001:db8::/64", true)
	if err != nil || !closed.Closed || closed.Ended != 3 || closed.Source.String() != "2001:db8::/64" {
		t.Errorf("Close: %+v, %v", closed, err)
	}
	closed, err = c.Close(ctx, "ssh", "192.0.2.1", false)
	if err != nil || !closed.Closed || closed.Ended != 0 {
		t.Errorf("Close, without sessions: %+v, %v", closed, err)
	}
	explained, err := c.Explain(ctx, "2001:db8::/64")
	if err != nil || len(explained) != 1 || explained[0].Door != "ssh" || explained[0].Source.String() != "2001:db8::/64" {
		t.Errorf("Explain: %+v, %v", explained, err)
	}
	if r, err := c.Reload(ctx, "2m"); err != nil || r.Doors != 1 || r.TrialSeconds != 120 {
		t.Errorf("Reload: %+v, %v", r, err)
	}
	if _, err := c.Confirm(ctx); err != nil {
		t.Errorf("Confirm: %v", err)
	}
	if _, err := c.Down(ctx); err != nil {
		t.Errorf("Down: %v", err)
	}
	<-s.ended
}

// Names may contain characters with a meaning in paths.
func TestTheClientNamesDoorsAndSourcesAsTheyAre(t *testing.T) {
	s := serve(t)
	c := control.NewClient(s.path)
	for _, name := range []string{"a/b", "a?b", "a#b", "a%2fb", "a b", "ssh/192.0.2.1", "../windows/ssh"} {
		_, err := c.Close(t.Context(), name, "192.0.2.1", false)
		if want := fmt.Sprintf("there is no door %q; there is", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("closing %q: %v", name, err)
		}
		_, err = c.Close(t.Context(), "ssh", name, false)
		if want := fmt.Sprintf("%q is not an IP address", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("closing for %q: %v", name, err)
		}
		_, err = c.Explain(t.Context(), name)
		if want := fmt.Sprintf("%q is not an IP address", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("explaining %q: %v", name, err)
		}
	}
	// A path cannot contain these names, so there is nothing at it.
	for _, name := range []string{"", ".", ".."} {
		_, err := c.Close(t.Context(), name, "192.0.2.1", false)
		if want := "there is nothing at /v1/windows/" + name + "/192.0.2.1"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("closing %q: %v", name, err)
		}
	}
	wantWindows(t, s, before...)
}

// page returns the daemon's own description.
func page(t *testing.T, s *served) string {
	t.Helper()
	response, body := s.ask(t, http.MethodGet, "/", "")
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/markdown") {
		t.Fatalf("GET /: %s, %v", response.Status, response.Header)
	}
	return body
}

func TestThePageNamesEveryRoute(t *testing.T) {
	s := serve(t)
	// The example of a path stands for all paths of that kind.
	kind := func(path string) string {
		return strings.NewReplacer("/ssh/192.0.2.7", "/{door}/{source...}", "/explain/192.0.2.7", "/explain/{address...}", "{$}", "").Replace(path)
	}
	named := map[string]bool{}
	methods := map[string][]string{}
	examples := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]+) (/[^`]*)` \\|").FindAllStringSubmatch(page(t, s), -1) {
		named[m[1]+" "+kind(m[2])] = true
		methods[m[2]] = append(methods[m[2]], m[1])
		if m[1] == http.MethodGet {
			methods[m[2]] = append(methods[m[2]], http.MethodHead)
		}
		examples[m[1]] = m[2]
	}
	source, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, m := range regexp.MustCompile(`mux\.Handle(?:Func)?\("([A-Z]+) ([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		served[m[1]+" "+kind(m[2])] = true
	}
	if len(served) < 10 {
		t.Errorf("only these routes are found in server.go: %v", served)
	}
	if diff := cmp.Diff(served, named); diff != "" {
		t.Errorf("routes (-served +on the page):\n%s", diff)
	}
	// The daemon takes the methods that the page lists.
	for path, want := range methods {
		response, body := s.ask(t, "ANY", path, "")
		wantRefusal(t, response, body, http.StatusMethodNotAllowed)
		slices.Sort(want)
		if got := response.Header.Get("Allow"); got != strings.Join(want, ", ") {
			t.Errorf("%s takes %s, and the page says %v", path, got, want)
		}
	}
}

func TestThePageNamesEveryStatus(t *testing.T) {
	s := serve(t)
	named := map[int]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([0-9]{3}) \|`).FindAllStringSubmatch(page(t, s), -1) {
		code, _ := strconv.Atoi(m[1])
		named[code] = true
	}
	byName := map[string]int{}
	for code := 100; code < 600; code++ {
		if text := http.StatusText(code); text != "" {
			byName["Status"+strings.NewReplacer(" ", "", "-", "").Replace(text)] = code
		}
	}
	given := map[int]bool{http.StatusOK: true}
	for _, name := range []string{"server.go", "answer.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok || !strings.HasPrefix(selector.Sel.Name, "Status") {
				return true
			}
			if from, ok := selector.X.(*ast.Ident); ok && from.Name == "http" {
				if code := byName[selector.Sel.Name]; code != 0 {
					given[code] = true
				}
			}
			return true
		})
	}
	if diff := cmp.Diff(given, named); diff != "" {
		t.Errorf("status codes (-given +on the page):\n%s", diff)
	}
}

func TestThePageNamesEveryMetricAndItsLabels(t *testing.T) {
	s := serve(t)
	c := inEveryWay(t)
	c.Share = &ruleset.Share{Group: "prod"}
	if err := s.Wall.Apply(c); err != nil { // only a door with a list has all metrics
		t.Fatal(err)
	}
	lag := 0.001
	if err := s.Wall.TellSharing(wall.Companion{Group: "prod", Name: "a", Count: 1, Members: []wall.Member{{Name: "b", LagSeconds: &lag}}}); err != nil {
		t.Fatal(err)
	}
	text := page(t, s)
	_, table, _ := strings.Cut(text, "| metric |")
	ticked := regexp.MustCompile("`([a-z_]+)`")
	named := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		labels := []string{}
		for _, m := range ticked.FindAllStringSubmatch(cells[2], -1) {
			labels = append(labels, m[1])
		}
		slices.Sort(labels)
		for _, m := range ticked.FindAllStringSubmatch(cells[1], -1) {
			named["knockwall_"+m[1]] = labels
		}
	}
	response, body := s.ask(t, http.MethodGet, "/metrics", "")
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("GET /metrics: %s, %v", response.Status, response.Header)
	}
	given := map[string][]string{}
	label := regexp.MustCompile(`([a-z_]+)="`)
	var name string
	for line := range strings.Lines(body) {
		if text, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(text, " ")
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		labels := []string{}
		for _, m := range label.FindAllStringSubmatch(line, -1) {
			if m[1] != "le" {
				labels = append(labels, m[1])
			}
		}
		slices.Sort(labels)
		// The page names the metrics of the Go runtime by their prefix.
		if prefix, _, _ := strings.Cut(name, "_"); prefix == "go" || prefix == "process" {
			if !strings.Contains(text, "`"+prefix+"_") {
				t.Errorf("the page does not say that there is %s", name)
			}
			continue
		}
		given[name] = labels
	}
	if diff := cmp.Diff(given, named); diff != "" {
		t.Errorf("metrics (-given +on the page):\n%s", diff)
	}
}

func TestMetricsSayWhatTheStatusSays(t *testing.T) {
	s := serve(t)
	_, body := s.ask(t, http.MethodGet, "/metrics", "")
	for _, want := range []string{
		`knockwall_knocks_total{door="ssh"} 1`,
		`knockwall_windows_open{door="ssh"} 1`,
		`knockwall_kernel_packets_total{door="ssh",verdict="admitted"} 2`,
		`knockwall_kernel_packets_total{door="ssh",verdict="refused"} 5`,
		`knockwall_attempts 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, body)
		}
	}
}

func TestTheStatusSaysByWhatDoorsOpenAndNotHow(t *testing.T) {
	s := serve(t)
	if err := s.Wall.Apply(inEveryWay(t)); err != nil {
		t.Fatal(err)
	}
	s.kernel.knock([]byte("passworded otp"), packet.Packet{
		Source: netip.MustParseAddr("192.0.2.2"), Port: packet.Port{Number: 17007, Protocol: packet.UDP},
	}, otp.Datagram([]byte("hipjazz"), netip.MustParseAddr("192.0.2.2"), time.Now()))
	s.kernel.knock([]byte("ssh trapped"), packet.Packet{
		Source: netip.MustParseAddr("192.0.2.3"), Port: packet.Port{Number: 17008, Protocol: packet.TCP},
	}, nil)
	response, body := s.ask(t, http.MethodGet, "/v1/status", "")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("answered with %s", response.Status)
	}
	type counters struct{ Knocks, Trapped, Replayed, Opened int }
	type door struct {
		Name          string
		Steps         int
		OpensBy       []string `json:"opens_by"`
		SequencesLeft *int     `json:"sequences_left"`
		Counters      counters
	}
	var got struct{ Doors []door }
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	two := 2
	want := []door{
		{"ssh", 2, []string{"sequence"}, nil, counters{Knocks: 1, Trapped: 1}},
		{"listed", 2, []string{"one_time_sequences"}, &two, counters{}},
		{"passworded", 0, []string{"otp"}, nil, counters{Knocks: 1, Opened: 1}},
	}
	if diff := cmp.Diff(want, got.Doors); diff != "" {
		t.Errorf("doors (-want +got):\n%s", diff)
	}
	for _, hidden := range []string{"1700", "18002", "hipjazz"} {
		if strings.Contains(body, hidden) {
			t.Errorf("%q is in the status: %s", hidden, body)
		}
	}
}

func TestThePageNamesEveryFieldOfAnEvent(t *testing.T) {
	s := serve(t)
	_, text, _ := strings.Cut(page(t, s), "An event has the fields of the audit trail:")
	text, _, _ = strings.Cut(text, "those that apply")
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(text, -1) {
		named[m[1]] = true
	}
	event, err := json.Marshal(audit.Event{
		Time: time.Now(), Kind: audit.Opened, Door: "ssh", Source: packet.Source{Prefix: netip.MustParsePrefix("192.0.2.1/32")}, Person: "alice", Key: "SHA256:abc", Origin: "host2",
		Port: packet.Port{Number: 22, Protocol: packet.TCP}, Step: 1, Steps: 2, Code: audit.CodeManual, Reason: "x", Window: time.Second, Count: 1, Failed: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(event, &fields); err != nil {
		t.Fatal(err)
	}
	for name := range maps.Keys(fields) {
		if !named[name] {
			t.Errorf("the page does not name %q", name)
		}
		delete(named, name)
	}
	if len(named) > 0 {
		t.Errorf("the page names %v, which no event has", named)
	}
}

func TestEventsAreALineOfJSONEach(t *testing.T) {
	s := serve(t)
	response, body := s.ask(t, http.MethodGet, "/v1/events", "")
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("answered with %s, %v", response.Status, response.Header)
	}
	var kinds []string
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		var e audit.Event
		if err := json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &e); err != nil {
			t.Errorf("%v in %s", err, lines.Text())
		}
		kinds = append(kinds, string(e.Kind))
	}
	if diff := cmp.Diff([]string{"started", "knock"}, kinds); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
