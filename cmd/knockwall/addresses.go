//go:build linux && !client

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/control"
	"github.com/knockwall/knockwall/internal/wall"
)

// lookupTimeout is how long a name is looked up.
const lookupTimeout = 5 * time.Second

// hostName matches what may be the name of a host, and no address or prefix.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_.-]*[A-Za-z][A-Za-z0-9_.-]*$`)

// addressesOf returns an address or a prefix as it is, and the addresses of a host by its
// name. The daemon refuses what is neither.
func addressesOf(ctx context.Context, who string) ([]string, error) {
	if !hostName.MatchString(who) {
		return []string{who}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := client.Resolve(ctx, "ip", who)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, a := range found {
		addresses = append(addresses, a.String())
	}
	return addresses, nil
}

// explainAll explains for an address, a person, or else a host by its name.
func explainAll(ctx context.Context, daemon *control.Client, who string) ([]wall.Explanation, error) {
	doors, refused := daemon.Explain(ctx, who)
	if refused == nil || !hostName.MatchString(who) || !isRefusedRequest(refused) {
		return doors, refused
	}
	addresses, err := addressesOf(ctx, who)
	if err != nil {
		return nil, &usageError{fmt.Errorf("%w; %w", refused, err)}
	}
	all := []wall.Explanation{}
	var failures []error
	for _, a := range addresses {
		doors, err := daemon.Explain(ctx, a)
		all, failures = append(all, doors...), append(failures, err)
	}
	return all, errors.Join(failures...)
}
