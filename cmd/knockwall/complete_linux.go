//go:build !client

package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/wall"
)

// completeTimeout is how long a shell waits for the daemon.
const completeTimeout = 2 * time.Second

// completeFromStatus completes a flag or the next argument with words from the status of the
// daemon.
func completeFromStatus(path *string, words func(s wall.Status, arguments []string) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, arguments []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
		defer cancel()
		s, err := control.NewClient(*path).Status(ctx, wall.WindowQuery{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return beginning(words(s, arguments), begun), cobra.ShellCompDirectiveNoFileComp
	}
}

// doorsOf returns the doors of the wall.
func doorsOf(s wall.Status, _ []string) (names []string) {
	for _, d := range s.Doors {
		names = append(names, d.Name)
	}
	return names
}

// guestsOf returns the addresses and persons with an open window.
func guestsOf(s wall.Status, _ []string) []string {
	return guests(s, func(wall.WindowStatus) bool { return true })
}

// doorThenGuest returns the doors, or after a door the addresses and persons for which it is
// open.
func doorThenGuest(s wall.Status, arguments []string) []string {
	switch len(arguments) {
	case 0:
		return doorsOf(s, nil)
	case 1:
		return guests(s, func(w wall.WindowStatus) bool { return w.Door == arguments[0] })
	}
	return nil
}

func guests(s wall.Status, counts func(wall.WindowStatus) bool) (names []string) {
	for _, w := range s.Windows {
		if counts(w) {
			names = append(names, w.Source.String())
			if w.Person != "" {
				names = append(names, w.Person)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// first completes the first argument only.
func first(words func(wall.Status, []string) []string) func(wall.Status, []string) []string {
	return func(s wall.Status, arguments []string) []string {
		if len(arguments) > 0 {
			return nil
		}
		return words(s, arguments)
	}
}
