//go:build !unix

package ruleset

import "io/fs"

// isOwn returns false, as this system has no owner to compare.
func isOwn(fs.FileInfo) bool { return false }
