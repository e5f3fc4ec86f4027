//go:build man

package main

import "testing"

func TestManualPages(t *testing.T) { runScripts(t, "testdata/man") }
