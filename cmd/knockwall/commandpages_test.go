//go:build linux && !client

package main

import (
	"fmt"
	"strings"
	"testing"
)

// knockwall(8) names every command, with what its help says.
func TestTheManualPageNamesEveryCommand(t *testing.T) {
	page := pages(t)["../../docs/knockwall.8.md"]
	root := rootCommand()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if row := fmt.Sprintf("\n- **%s**: %s%s\n", c.Name(), strings.ToLower(c.Short[:1]), c.Short[1:]); c.IsAvailableCommand() && !strings.Contains(page, row) {
			t.Errorf("the page lacks %q", row)
		}
	}
}
