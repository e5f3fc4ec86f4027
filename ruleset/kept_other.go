//go:build !linux

package ruleset

import "errors"

// swap exchanges the names of two files or folders, in one step, where the system can.
func swap(a, b string) error { return errors.ErrUnsupported }
