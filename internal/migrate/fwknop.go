package migrate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/printable"
)

// This file reads fwknop's access.conf, the files that it includes, and the fwknopd.conf
// beside it, as the manual fwknopd(8) describes them. Messages and comments quote no value
// that may be a key.

// KeyFile is a file with a key for rule files, in base64.
type KeyFile struct {
	Name string // without a folder
	Text []byte
}

// SecretsFolder is the folder of keys in rule files that [ImportFwknop] makes.
const SecretsFolder = "/etc/knockwall.secrets"

// The limits of what access.conf may include.
const (
	maxIncludes   = 100
	maxKeyWords   = 500 // variables of one stanza
	fwknopdConfig = "fwknopd.conf"
)

// firstOfAccess matches a line with which access.conf begins.
var firstOfAccess = regexp.MustCompile(`^(?:SOURCE\b|%include|%include_folder)`)

// IsFwknop reports whether a file is an access.conf of fwknop, by its first line that is
// neither blank nor a comment.
func IsFwknop(text []byte) bool {
	lines := significant(text)
	return len(lines) > 0 && firstOfAccess.MatchString(lines[0].text)
}

// ImportFwknop turns an access.conf into the text of a rule file, and into the files with
// its keys, which the rule file expects in a folder. name is the file's path, and files is
// where it is and where the files are that it includes, by their paths without the first /.
// If files is nil, ImportFwknop reads no other file. The error is an [Errors].
func ImportFwknop(name string, text []byte, files fs.FS, folder string) ([]byte, []KeyFile, error) {
	im := &fwknopImport{files: files, port: wire.Port}
	im.readAccess(name, text)
	im.readDaemon(path.Join(path.Dir(name), fwknopdConfig))
	if len(im.stanzas) == 0 && len(im.mistakes) == 0 {
		im.fail(name, 0, "there is no line with SOURCE, so nobody has access")
	}
	rules, keys := im.write(name, folder)
	if len(rules) > maxResult {
		im.fail(name, 0, "the rule file would have %d KiB, and a rule file has at most %d KiB: split the file, and import the parts", len(rules)>>10, maxResult>>10)
	}
	if len(im.mistakes) > 0 {
		return nil, nil, im.shown(printable.Escape(name))
	}
	return rules, keys, nil
}

// fwknopImport is one run of ImportFwknop.
type fwknopImport struct {
	files    fs.FS
	within   []string // the files that are being read: each includes the next
	included int
	stanzas  []*stanza
	notes    []string // for all doors
	port     uint16   // to which clients send
	mistakes
}

// stanza is what follows a line with SOURCE.
type stanza struct {
	file   string
	line   int
	values map[string]setting
	order  []string // names of the values, as they were written
}

// setting is the value of a variable, and its place.
type setting struct {
	text string
	file string
	line int
}

// fail adds an error at a line of a file, or in the whole file if line is 0.
func (im *fwknopImport) fail(file string, line int, format string, a ...any) {
	im.add(printable.Escape(file), line, format, a...)
}

func (im *fwknopImport) note(format string, a ...any) {
	im.notes = append(im.notes, fmt.Sprintf(format, a...))
}

// readAccess reads an access.conf, or a file that one includes.
func (im *fwknopImport) readAccess(name string, text []byte) {
	im.within = append(im.within, name)
	defer func() { im.within = im.within[:len(im.within)-1] }()
	lines, _ := im.lines(printable.Escape(name), text)
	var current *stanza
	for _, l := range lines {
		key, value := variable(l.text)
		switch {
		case key == "%include":
			im.include(name, l.number, value)
		case key == "%include_folder":
			im.includeFolder(name, l.number, value)
		case key == "%include_keys" && current != nil:
			if text, ok := im.open(name, l.number, value); ok {
				im.readKeys(current, resolve(name, value), text)
			}
		case strings.HasPrefix(key, "%"):
			im.fail(name, l.number, "fwknopd has no such directive here")
		case key == "SOURCE":
			if len(im.stanzas) == maxDoors {
				im.fail(name, l.number, "more than %d lines with SOURCE: split the file, and import the parts", maxDoors)
				return
			}
			current = &stanza{file: name, line: l.number, values: map[string]setting{}}
			im.stanzas = append(im.stanzas, current)
			fallthrough
		default:
			im.set(current, name, l.number, key, value)
		}
	}
}

// readKeys reads a file with keys of a stanza.
func (im *fwknopImport) readKeys(s *stanza, name string, text []byte) {
	lines, _ := im.lines(printable.Escape(name), text)
	for _, l := range lines {
		key, value := variable(l.text)
		im.set(s, name, l.number, key, value)
	}
}

func (im *fwknopImport) set(s *stanza, file string, line int, key, value string) {
	switch {
	case s == nil:
		im.fail(file, line, "this line is before the first SOURCE, with which each stanza begins")
	case !isVariable.MatchString(key):
		im.fail(file, line, "this is not a variable of access.conf: write NAME value")
	case len(s.order) == maxKeyWords:
		im.fail(file, line, "more than %d variables in one stanza", maxKeyWords)
	default:
		if _, again := s.values[key]; !again {
			s.order = append(s.order, key)
		}
		s.values[key] = setting{value, file, line}
	}
}

var isVariable = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// variable splits a line such as "OPEN_PORTS: tcp/22;".
func variable(line string) (key, value string) {
	at := strings.IndexAny(line, " \t:")
	if at < 0 {
		return strings.TrimSuffix(line, ";"), ""
	}
	value = strings.TrimLeft(line[at:], " \t:")
	return line[:at], strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), ";"))
}

// resolve returns the path of a file that another one names.
func resolve(from, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(path.Dir(from), name)
}

// open reads a file that another one names.
func (im *fwknopImport) open(from string, line int, name string) ([]byte, bool) {
	if im.files == nil {
		im.note("%s line %d names the file %s, which was not read. Import the file on the host where it is.", from, line, name)
		return nil, false
	}
	if im.included++; im.included > maxIncludes {
		im.fail(from, line, "more than %d files are included", maxIncludes)
		return nil, false
	}
	text, err := im.read(resolve(from, name))
	if err != nil {
		im.fail(from, line, "%v", err)
	}
	return text, err == nil
}

// read reads a regular file, and at most MaxSize bytes and one more of it.
func (im *fwknopImport) read(name string) ([]byte, error) {
	inside := strings.TrimPrefix(name, "/")
	info, err := fs.Stat(im.files, inside)
	if err != nil {
		return nil, unread(name, err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would block
		return nil, fmt.Errorf("%s is not a regular file", printable.Escape(name))
	}
	f, err := im.files.Open(inside)
	if err != nil {
		return nil, unread(name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, unread(name, err)
	}
	return text, nil
}

// unread returns the error for a file or folder that cannot be read.
func unread(name string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err // without the path, which is printed in a safe form
	}
	return fmt.Errorf("cannot read %s: %w", printable.Escape(name), err)
}

func (im *fwknopImport) include(from string, line int, name string) {
	file := resolve(from, name)
	if slices.Contains(im.within, file) {
		im.fail(from, line, "this line includes %s, which leads here: remove the line", printable.Escape(file))
	} else if text, ok := im.open(from, line, name); ok {
		im.readAccess(file, text)
	}
}

// includeFolder reads the *.conf files of a folder.
func (im *fwknopImport) includeFolder(from string, line int, name string) {
	if im.files == nil {
		im.open(from, line, name)
		return
	}
	folder := resolve(from, name)
	entries, err := fs.ReadDir(im.files, strings.TrimPrefix(folder, "/"))
	if err != nil {
		im.fail(from, line, "%v", unread(folder, err))
		return
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".conf") {
			im.include(from, line, path.Join(folder, e.Name()))
		}
	}
}

// udpPort matches the port in a PCAP_FILTER such as "udp port 62201".
var udpPort = regexp.MustCompile(`^udp (?:dst )?port ([0-9]{1,5})$`)

// usualAge is the default of MAX_SPA_PACKET_AGE in seconds.
const usualAge = "120"

// anotherPort ends the notes that the port is not known.
const anotherPort = "If clients send to another UDP port than 62201, write the port into each fwknop block: port = \"5000/udp\"."

// readDaemon reads the fwknopd.conf beside access.conf, if there is one.
func (im *fwknopImport) readDaemon(name string) {
	if im.files == nil {
		return
	}
	text, err := im.read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		im.note("%s was not read: %v. "+anotherPort, fwknopdConfig, err)
	}
	lines, _ := im.lines(printable.Escape(name), text)
	for _, l := range lines {
		key, value := variable(l.text)
		switch key {
		case "PCAP_FILTER":
			if m := udpPort.FindStringSubmatch(value); m != nil {
				im.sets(m[1])
			} else {
				im.note("fwknopd.conf line %d: PCAP_FILTER is %s. "+anotherPort, l.number, value)
			}
		case "UDPSERV_PORT":
			im.sets(value)
		case "PCAP_INTF":
			im.note("fwknopd listened on the interface %s. The doors guard all interfaces but lo, and datagrams may come by any of them.", value)
		case "MAX_SPA_PACKET_AGE":
			if value != usualAge {
				im.note("MAX_SPA_PACKET_AGE was %s s. Here a datagram is valid for 2 minutes.", value)
			}
		case "ENABLE_SPA_PACKET_AGING":
			if strings.EqualFold(value, "N") {
				im.note("ENABLE_SPA_PACKET_AGING was N. Here a datagram is valid for 2 minutes, so the clocks of clients must be right.")
			}
		case "ENABLE_TCP_SERVER", "ENABLE_SPA_OVER_HTTP":
			if strings.EqualFold(value, "Y") {
				im.note("%s was Y. Here clients must send by UDP, which is their default.", key)
			}
		}
	}
}

// sets sets the port to which clients send.
func (im *fwknopImport) sets(number string) {
	if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 {
		im.port = uint16(n)
	}
}

// yes reports whether a variable is Y.
func (s *stanza) yes(name string) bool { return strings.EqualFold(s.values[name].text, "Y") }

// has reports whether a variable has a value.
func (s *stanza) has(name string) bool { return s.values[name].text != "" }

// hasPrefix reports whether there is a variable whose name begins so.
func (s *stanza) hasPrefix(prefix string) bool {
	return slices.ContainsFunc(s.order, func(name string) bool { return strings.HasPrefix(name, prefix) })
}

// changeMe is what files have in place of keys until somebody changes them.
const changeMe = "__CHANGEME__"

// key returns a key in base64, from NAME_BASE64 or from the passphrase NAME. It is "" after
// an error, and if there is no key.
func (im *fwknopImport) key(s *stanza, name string, most int) string {
	encoded, isEncoded := s.values[name+"_BASE64"]
	if !isEncoded {
		passphrase := s.values[name]
		if n := len(passphrase.text); n > most {
			im.fail(passphrase.file, passphrase.line, "%s has %d bytes, and fwknop uses at most %d", name, n, most)
			return ""
		}
		return base64.StdEncoding.EncodeToString([]byte(passphrase.text))
	}
	if _, err := wire.ParseKey([]byte(encoded.text), most); err != nil {
		im.fail(encoded.file, encoded.line, "%s_BASE64: %v", name, err)
		return ""
	}
	return encoded.text
}
