//go:build !linux

package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/ruleset"
)

// Doors stand on Linux. On other systems knockwall is a client, and checks and converts
// rule files for a host elsewhere.

const hostExample = `  knockwall check --config ssh.hcl
`

func hostCommands() []*cobra.Command { return nil }

func isRefusedRequest(error) bool { return false }

func asError(stderr io.Writer) io.Writer { return stderr }

// hostReport has the fields that check --json writes of a host.
type hostReport struct {
	Findings []struct{} `json:"findings"`
	Unmade   []unmade   `json:"not_checked"`
}

type unmade struct {
	Check string `json:"check"`
	Why   string `json:"why"`
}

func noReport() hostReport { return hostReport{[]struct{}{}, []unmade{}} }

func onReading(*ruleset.Config) (hostReport, *ruleset.Loaded) {
	r := noReport()
	r.Unmade = append(r.Unmade, unmade{"this host", "it is no Linux system, and has no doors"})
	return r, &ruleset.Loaded{}
}

func notLookedAt([]unmade) string { return "; not looked at: this host, which is no Linux system" }

func review(path string) *ruleset.Loaded { return ruleset.Review(path) }

func refusesDaemon(*cobra.Command, string, ...string) (bool, error) { return false, nil }
