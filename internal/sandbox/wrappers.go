package sandbox

import (
	"path"
	"slices"
	"strings"
)

// wrapper is a program that runs another.
type wrapper struct {
	own    int      // its own arguments before the other program
	valued []string // its options that have a value
}

var wrappers = map[string]wrapper{
	"sudo": {0, []string{"-u", "--user", "-g", "--group", "-p", "-h", "-C"}}, "doas": {0, []string{"-u", "-C"}},
	"nice": {0, []string{"-n"}}, "ionice": {0, []string{"-c", "-n"}}, "nohup": {}, "setsid": {}, "exec": {0, []string{"-a"}}, "command": {},
	"env": {0, []string{"-u", "--unset", "-C", "--chdir"}}, "time": {0, []string{"-f", "-o"}},
	"timeout": {1, []string{"-k", "-s", "--kill-after", "--signal"}}, "flock": {1, []string{"-w", "-E", "--timeout"}}, "busybox": {},
	"stdbuf": {0, []string{"-i", "-o", "-e"}}, "chrt": {1, nil}, "unbuffer": {},
}

// xargs also adds arguments to the program, which are not known here.
var xargs = wrapper{0, []string{"-a", "-d", "-E", "-I", "-L", "-n", "-P", "-s"}}

// IsSudo reports whether a program runs another as root.
func IsSudo(program string) bool {
	return slices.Contains([]string{"sudo", "doas"}, path.Base(program))
}

// IsShell reports whether a program reads commands.
func IsShell(program string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "ksh", "busybox"}, path.Base(program))
}

// HasCommandOption reports whether an option of a shell is -c, alone or with others.
func HasCommandOption(option string) bool {
	return strings.HasPrefix(option, "-") && strings.HasSuffix(option, "c") && !strings.HasPrefix(option, "--")
}

// Unwrapped removes programs that only run another from the beginning of a command. sudo to
// another user than root stays.
func Unwrapped(words []string) []string {
	for len(words) > 1 {
		w, ok := wrappers[path.Base(words[0])]
		if !ok {
			break
		}
		rest := w.unwrap(words)
		if len(rest) == len(words) {
			break
		}
		words = rest
	}
	return words
}

// unwrap returns the program that a wrapper runs, with its arguments, or all words if there
// is none.
func (w wrapper) unwrap(words []string) []string {
	program, rest, own := path.Base(words[0]), words[1:], w.own
	for len(rest) > 0 {
		if option := rest[0]; strings.HasPrefix(option, "-") && option != "-" {
			rest = rest[1:]
			if slices.Contains(w.valued, option) && len(rest) > 0 {
				if IsSudo(program) && (option == "-u" || option == "--user") && rest[0] != "root" {
					return words
				}
				rest = rest[1:]
			}
		} else if program == "env" && strings.Contains(option, "=") {
			rest = rest[1:]
		} else if own > 0 {
			own, rest = own-1, rest[1:]
		} else {
			return rest
		}
	}
	return words
}
