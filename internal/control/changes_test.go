package control_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/wall"
	"github.com/knockwall/knockwall/ruleset"
)

// A companion needs no more than the page describes: it reads the state, follows the changes,
// and tells of others.
func TestACompanionFollowsAndTells(t *testing.T) {
	s := serve(t)
	c := rules()
	c.Share = &ruleset.Share{Group: "prod"}
	if err := s.daemon.Wall.Apply(c); err != nil {
		t.Fatal(err)
	}
	client := control.NewClient(s.path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := make(chan wall.Change, 100)
	done := make(chan error)
	go func() {
		done <- client.FollowChanges(ctx, "", func(c wall.Change) error {
			changes <- c
			return nil
		})
	}()
	expect := func(want ...string) (last wall.Change) {
		t.Helper()
		var got []string
		for range want {
			last = <-changes
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", last.Kind, last.Door, last.Origin)))
		}
		if !slices.Equal(got, want) {
			t.Errorf("changes: %q, want %q", got, want)
		}
		return last
	}
	cursor := expect("state", "open ssh", "current").Cursor
	errs, err := client.Tell(ctx, "host2", []control.Told{
		{Kind: wall.ChangeOpen, Door: "ssh", Source: "192.0.2.77", Left: "10s", Person: "alice"},
		{Kind: wall.ChangeOpen, Door: "none", Source: "192.0.2.77", Left: "10s"},
		{Kind: wall.ChangeClosed, Door: "ssh", Source: "192.0.2.77"},
	})
	if err != nil || len(errs) != 3 || errs[0] != "" || !strings.Contains(errs[1], "there is no door") || errs[2] != "" {
		t.Errorf("told: %q, %v", errs, err)
	}
	expect("open ssh host2", "closed ssh host2")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("following ends: %v", err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	var again []string
	enough := errors.New("enough")
	if err := client.FollowChanges(ctx, cursor, func(c wall.Change) error {
		if again = append(again, string(c.Kind)); len(again) == 2 {
			return enough
		}
		return nil
	}); err != enough {
		t.Fatal(err)
	}
	if want := []string{"open", "closed"}; !slices.Equal(again, want) {
		t.Errorf("after the cursor: %q, want %q", again, want)
	}
}

func TestChangesThatAreWrong(t *testing.T) {
	s := serve(t)
	const changes = `"changes" takes a list, and not a text`
	many := strings.Repeat(`{"change":"closed","door":"ssh","source":"192.0.2.1"},`, control.MaxTold+1)
	for body, says := range map[string]string{
		`{"origin":"a b"}`: "an origin is the name of a host",
		`{"origin":"host2","changes":[{"change":"open","door":"ssh","source":"192.0.2.1","left":"soon"}]}`: "left is a time",
		`{"origin":"host2","changes":[` + strings.TrimSuffix(many, ",") + `]}`:                             "at most 256 are taken at once",
		`{"origin":"host2","changes":[{"shell":"x"}]}`:                                                     `there is no "shell"`,
		`{"origin":"host2","changes":"none"}`:                                                              changes,
		`{"origin":"host2","changes":[{"change":"used","time":"now"}]}`:                                    "a value in it cannot be read",
	} {
		response, text := s.ask(t, http.MethodPost, "/v1/changes", body)
		wantRefusal(t, response, text, http.StatusBadRequest, says)
		control.NoGo(t, text)
	}
	wantWindows(t, s, before...)
	for size, says := range map[int]string{1 << 20: "", 1<<20 + 1: "the body is longer than 1048576 bytes"} {
		body := `{"origin":"host2","changes":[]}`
		response, text := s.ask(t, http.MethodPost, "/v1/changes", body+strings.Repeat(" ", size-len(body)))
		if (response.StatusCode == http.StatusOK) != (says == "") || !strings.Contains(text, says) {
			t.Errorf("%d bytes: %s %s", size, response.Status, text)
		}
	}
}
