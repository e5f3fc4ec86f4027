package ruleset

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Share says with which hosts this one shares its windows, and how it reaches them. The
// daemon only needs to know which doors are shared.
type Share struct {
	Group   string   // the hosts of one group share
	Name    string   // of this host in the group; "": the first label of the host's name
	Servers []string // URLs: tls://, or nats:// on this host itself
	Doors   []string // the names of the shared doors; nil: all
	// Credentials and NKey are the paths of files with secrets, of which at most one is set.
	// They need not be readable here: the companion reads them, as another user.
	Credentials, NKey string
	CA, Cert, Key     string // paths of PEM files; "": the system's authorities, and no certificate of its own
}

// Shares reports whether a door is shared. It may be called on nil.
func (s *Share) Shares(door string) bool {
	return s != nil && (s.Doors == nil || slices.Contains(s.Doors, door))
}

// IsLocal reports whether all servers are on this host, so that no traffic leaves it.
func (s *Share) IsLocal() bool {
	return !slices.ContainsFunc(s.Servers, func(server string) bool {
		u, err := url.Parse(server)
		return err != nil || !isLoopback(u.Hostname())
	})
}

// rawShare and rawTLS are the share block as HCL decodes it.
type rawShare struct {
	Group       hcl.Expression `hcl:"group,optional"`
	Name        hcl.Expression `hcl:"name,optional"`
	Servers     hcl.Expression `hcl:"servers,optional"`
	Doors       hcl.Expression `hcl:"doors,optional"`
	Credentials hcl.Expression `hcl:"credentials,optional"`
	NKey        hcl.Expression `hcl:"nkey,optional"`
	TLS         []rawTLS       `hcl:"tls,block"`
	Range       hcl.Range      `hcl:",def_range"`
}

type rawTLS struct {
	CA    hcl.Expression `hcl:"ca,optional"`
	Cert  hcl.Expression `hcl:"cert,optional"`
	Key   hcl.Expression `hcl:"key,optional"`
	Range hcl.Range      `hcl:",def_range"`
}

// maxServers is the maximum number of servers. A client needs only some of a cluster's.
const maxServers = 16

var (
	// A name is one token of a subject.
	groupName  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)
	memberName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
)

// IsMemberName reports whether a host can have a name in its group.
func IsMemberName(name string) bool { return memberName.MatchString(name) }

// LoadShare reads only the share block of the rule files at path. The companion, whose user
// cannot read the secrets of the doors, needs nothing else. The result is nil if there are
// errors or no share block.
func LoadShare(path string) (*Share, *Loaded) {
	l := newLoaded(ruleWords, path, daemon)
	var share *Share
	if raw, _ := l.readFiles(hclparse.NewParser(), path); raw != nil {
		share = l.checkShare(raw)
	}
	l.Sort()
	l.shorten()
	if l.Diagnostics.HasErrors() {
		return nil, l
	}
	return share, l
}

// checkShare returns nil if there is no share block.
func (l *Loaded) checkShare(raw *rawConfig) *Share {
	if len(raw.Shares) == 0 {
		return nil
	}
	for _, r := range raw.Shares[1:] {
		l.fail("Second share block", fmt.Sprintf("Only one share block is allowed. The first is at %s.", fileLine(raw.Shares[0].Range)), &r.Range)
	}
	r := &raw.Shares[0]
	s := &Share{}
	if !l.lacks(r.Group, r.Range, "No group", `Hosts of one group share: group = "prod".`) {
		l.text(r.Group, &s.Group)
		if s.Group != "" && !groupName.MatchString(s.Group) {
			l.failAt(r.Group, "Not a group", "A group is up to 32 letters, digits, hyphens and underscores.")
		}
	}
	l.text(r.Name, &s.Name)
	if s.Name != "" && !IsMemberName(s.Name) {
		l.failAt(r.Name, "Not a name", "The name of a host in its group is up to 63 letters, digits, hyphens and underscores. Leave it out for the host's own.")
	}
	l.servers(r, s)
	l.sharedDoors(r, s, raw)
	s.Credentials, s.NKey = l.filePath(r.Credentials), l.filePath(r.NKey)
	if !absent(r.Credentials) && !absent(r.NKey) {
		l.failAt(r.NKey, "Two identities", "Write credentials or nkey, and not both.")
	}
	if absent(r.Credentials) && absent(r.NKey) && len(s.Servers) > 0 && !s.IsLocal() {
		l.lacks(r.Credentials, r.Range, "No credentials", `The servers must know who this host is: credentials = "/etc/knockwall.secrets/nats.creds", or nkey = "/etc/knockwall.secrets/nats.nk".`)
	}
	l.certificates(r, s)
	return s
}

func (l *Loaded) servers(r *rawShare, s *Share) {
	if l.lacks(r.Servers, r.Range, "No servers", `Write the URLs of NATS servers: servers = ["tls://nats1.example.org:4222"].`) {
		return
	}
	scheme := "" // of the first server
	n, ok := l.list(r.Servers, func(e hcl.Expression, text string) {
		// No message quotes the text, as it may have a password.
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			l.failAt(e, "Not a server", `Write the URL of a NATS server: "tls://nats1.example.org:4222".`)
		case u.User != nil:
			l.failAt(e, "Password in a URL", "Others may see a URL. Use credentials or nkey, which name a file, and change this password.")
		case u.Scheme == "nats" && !isLoopback(u.Hostname()):
			l.failAt(e, "Server without TLS", "Without TLS, whoever is on the way can read and change what is shared. Write tls:// instead of nats://, which is only for a server on this host itself.")
		case u.Scheme != "tls" && u.Scheme != "nats":
			l.failAt(e, "Not a server", `The URL of a server begins with tls://, or with nats:// for one on this host itself.`)
		case scheme != "" && u.Scheme != scheme:
			l.failAt(e, "Servers with and without TLS", "One connection is for all servers, and either has TLS or does not. Write tls:// for all of them, or only those on this host itself, with nats://.")
		default:
			scheme = u.Scheme
			s.Servers = append(s.Servers, text)
		}
	})
	switch {
	case ok && n == 0:
		l.failAt(r.Servers, "No servers", "Write the URL of at least one server.")
	case n > maxServers:
		l.failAt(r.Servers, "Too many servers", fmt.Sprintf("Write at most %d servers. A client learns the others of their cluster from them.", maxServers))
	}
}

// isLoopback reports whether a host in a URL is certainly this one.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// sharedDoors reads the names of the shared doors. A name that no door has is only a
// warning: the rule files of a group may have the same share block.
func (l *Loaded) sharedDoors(r *rawShare, s *Share, raw *rawConfig) {
	n, ok := l.list(r.Doors, func(e hcl.Expression, name string) {
		switch {
		case !IsDoorName(name):
			l.failAt(e, "Not a door name", "A door's name is a letter, then up to 31 letters, digits, hyphens and underscores.")
		case !slices.ContainsFunc(raw.Doors, func(d rawDoor) bool { return d.Name == name }):
			l.warnAt(e, "No such door", "The rule files have no door of this name, so nothing is shared by it.")
			fallthrough
		default:
			s.Doors = append(s.Doors, name)
		}
	})
	if ok && n == 0 {
		l.failAt(r.Doors, "No doors", "Nothing would be shared. Leave doors out to share all of them.")
	}
}

// filePath reads the absolute path of a file. It does not look at the file.
func (l *Loaded) filePath(e hcl.Expression) string {
	if absent(e) {
		return ""
	}
	name, ok := l.value(e)
	if ok && !isWhole(name) {
		l.failAt(e, "Not an absolute path", "Write the absolute path of the file, which begins with /.")
		return ""
	}
	return name
}

func (l *Loaded) certificates(r *rawShare, s *Share) {
	if len(r.TLS) == 0 {
		return
	}
	for _, other := range r.TLS[1:] {
		l.fail("Duplicate tls block", fmt.Sprintf("Only one tls block is allowed. Another was defined at %s.", fileLine(r.TLS[0].Range)), &other.Range)
	}
	t := &r.TLS[0]
	s.CA, s.Cert, s.Key = l.filePath(t.CA), l.filePath(t.Cert), l.filePath(t.Key)
	if absent(t.Cert) != absent(t.Key) {
		l.fail("Half a certificate", "A certificate needs its private key: write both cert and key, or neither.", &t.Range)
	}
}
