//go:build !linux || client

package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/ruleset"
)

// Doors need Linux. On other systems, and with the build tag client, knockwall is a client. It
// also checks and converts rule files for other hosts.

const hostExample = `  knockwall check --config ssh.hcl
`

func hostCommands() []*cobra.Command { return nil }

// instead says where a command of hosts runs, or returns "".
func instead(command string) string {
	switch command {
	case "init", "identity", "invite", "run", "ruleset", "status", "events", "report", "explain", "open", "close",
		"reload", "confirm", "revert", "down", "doctor", "share", "demo":
		return command + " runs on the host, and this is the client"
	}
	return ""
}

func isRefusedRequest(error) bool { return false }

func asError(stderr io.Writer) io.Writer { return stderr }

// hostReport has the fields that check --json writes about a host.
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
	r.Unmade = append(r.Unmade, unmade{"this host", "this knockwall is for clients and knows no doors"})
	return r, &ruleset.Loaded{}
}

func notLookedAt([]unmade) string {
	return "; not checked: this host, as this knockwall is for clients"
}

func review(path string) *ruleset.Loaded { return ruleset.Review(path) }

func refusesDaemon(*cobra.Command, string, ...string) (bool, error) { return false, nil }
