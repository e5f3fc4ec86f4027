package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/integration/bench/report"
)

// describe describes the machine of the measurements. Unknown fields stay empty.
func describe(programs programs, folder string) report.Machine {
	m := report.Machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Go: runtime.Version(),
		System:   strings.Trim(strings.TrimPrefix(line("/etc/os-release", "PRETTY_NAME="), "PRETTY_NAME="), `"`),
		Programs: map[string]string{},
	}
	if memory, err := kibibytes("/proc/meminfo", "MemTotal"); err == nil {
		m.MemoryMiB = int(memory)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Sscan(string(b), &m.Load)
	}
	for _, program := range []string{"knockd", "fwknop", "nft", "gcc"} {
		if path := programs[program]; path != "" {
			m.Programs[program] = version(path, folder)
		}
	}
	return m
}

// line returns the first line of a file that has this beginning.
func line(path, prefix string) string {
	b, _ := os.ReadFile(path)
	for l := range strings.Lines(string(b)) {
		if strings.HasPrefix(l, prefix) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// field returns the text after the colon in a line of a file.
func field(path, name string) string {
	_, value, _ := strings.Cut(line(path, name), ":")
	return strings.TrimSpace(value)
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// version returns the version number of a program.
func version(path, home string) string {
	cmd := exec.Command(path, "--version")
	cmd.Env = append(os.Environ(), "HOME="+home) // fwknop creates a file there
	out, _ := cmd.CombinedOutput()
	return versionNumber.FindString(string(out))
}

// commit returns the commit of the sources as git describe has it, or "unknown".
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
