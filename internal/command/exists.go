package command

import "os"

// Exists reports whether there is such a program, which can be run.
func Exists(name string) bool {
	path, err := find(name)
	return err == nil && canRun(path)
}

// canRun reports whether a path is a file that somebody may run.
func canRun(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
