// Package build says which build of knockwall runs.
package build

import "runtime/debug"

// Version returns the module's version if the build has one, else the commit that the
// program was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "built from source"
}
