// Package hosts reads the hosts file of clients: how to knock at which host.
//
//	host "server.example.org" "*.lab" {
//	  identity = "kw1:…"
//	  door     = "ssh"
//	}
//	host "old.example.org" { knock = [4113, "27911/udp", 1840] }
//
// A block has patterns as Host of ssh_config(5) has them. The first block that fits a name
// is used. A block has one way to knock: identity, knock, rolling, otp, one_time_sequences
// or fwknop, all but the first and the last written as a door of a rule file has them.
package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/client"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/spa"
	"github.com/knockwall/knockwall/ruleset"
)

// Host is how to knock at a host.
type Host struct {
	Address string        // the name or address to knock at; empty: the name that was asked for
	Source  client.Source // the client's address, for signed knocks and passwords
	At      string        // the file and line of the block

	// The way to knock: one of these.
	Keyed  *Keyed
	Fwknop *client.Fwknop
	Method method.Method // of package fixed, rolling, lists or passwords
}

// Keyed is a knock signed with an ssh key.
type Keyed struct {
	Identity spa.Public
	Door     string
	Key      string // path of the public or private key; empty: those of the agent
	Port     uint16 // UDP
}

// DefaultPort is the UDP port of signed knocks where neither side names one.
const DefaultPort = 62201

// Paths returns the paths of the hosts files: the user's, then the one for all users. On
// systems without /etc there is only the user's.
func Paths() []string {
	var paths []string
	if own, err := UserPath(); err == nil {
		paths = append(paths, own)
	}
	if runtime.GOOS != "windows" {
		paths = append(paths, "/etc/knockwall/hosts.hcl")
	}
	return paths
}

// UserPath returns the path of the user's hosts file. It is in the folder of
// [os.UserConfigDir], such as ~/.config. The error says that the user has no such folder.
func UserPath() (string, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the folder of your hosts file: %w", err)
	}
	return filepath.Join(folder, "knockwall", "hosts.hcl"), nil
}

// Find reads hosts files in order, until a block fits the name. read is the last file that
// it read, with its diagnostics, and nil if there is no file. The host is nil if no block
// fits or if the file has errors.
func Find(name string, paths []string) (host *Host, read *ruleset.Loaded) {
	for _, path := range paths {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		file := parse(path)
		if read = file.loaded; read.Diagnostics.HasErrors() {
			return nil, read
		}
		if i := file.fitting(name); i >= 0 {
			host = file.blocks[i].host(read.Reader())
			read.Sort()
			if read.Diagnostics.HasErrors() {
				return nil, read
			}
			return host, read
		}
	}
	return nil, read
}

// Names returns the names of all hosts in hosts files that are no patterns. It leaves out
// files with errors, by which nobody can knock.
func Names(paths []string) (names []string) {
	for _, path := range paths {
		file := parse(path)
		if file.loaded.Diagnostics.HasErrors() {
			continue
		}
		for _, b := range file.blocks {
			for _, label := range b.Labels {
				if !strings.ContainsAny(label, "*?!") {
					names = append(names, label)
				}
			}
		}
	}
	return names
}

// file is a hosts file of which the values are not read yet. A block may name secrets and
// lists that only some users of the file can read.
type file struct {
	loaded *ruleset.Loaded
	blocks []block
}

type block struct {
	*hcl.Block
	fields fields
}

func parse(path string) *file {
	loaded, blocks := dialect.Read(path)
	f := &file{loaded: loaded}
	r := loaded.Reader()
	for _, b := range blocks {
		if len(b.Labels) == 0 {
			r.FailAt(b.DefRange, "No host", `Write the host's name, or a pattern: host "server.example.org" { … }.`)
		}
		read := block{Block: b}
		r.Decode(b, &read.fields)
		f.blocks = append(f.blocks, read)
	}
	loaded.Sort()
	return f
}

// fitting returns the index of the first block that fits a name, or -1.
func (f *file) fitting(name string) int {
	for i, b := range f.blocks {
		if fits(name, b.Labels) {
			return i
		}
	}
	return -1
}
