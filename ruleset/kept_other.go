//go:build !linux

package ruleset

import "errors"

// swap fails: only Linux exchanges two names atomically.
func swap(a, b string) error { return errors.ErrUnsupported }
