package command

// Exists reports whether there is such a program, which can be run.
func Exists(name string) bool {
	_, err := find(name)
	return err == nil
}
