package main

import (
	"go/build"
	"os"
	"strings"
	"testing"
)

// With the tag client, Linux gets the program that other systems have: what belongs to a host
// with doors is left out of both.
func TestTheClientIsTheSameOnEverySystem(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	client, elsewhere := build.Default, build.Default
	client.GOOS, client.BuildTags = "linux", []string{"client"}
	elsewhere.GOOS = "darwin"
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		inClient, err := client.MatchFile(".", f.Name())
		if err != nil {
			t.Fatal(err)
		}
		onOthers, err := elsewhere.MatchFile(".", f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if inClient != onOthers {
			t.Errorf("%s: in the client for Linux: %t, and in that for macOS: %t. "+
				"Files of hosts begin with //go:build linux && !client", f.Name(), inClient, onOthers)
		}
	}
}
