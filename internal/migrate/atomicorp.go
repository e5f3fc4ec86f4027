package migrate

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/otp"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// passwords has the settings of a door with one-time passwords.
type passwords struct {
	port        packet.Port
	open, close string // the secrets
}

var atomicorpLine = regexp.MustCompile(`^[0-9]+\s*[:,]`)

// isAtomicorp reports whether a line is of one of Atomicorp's lists, possibly with errors.
func isAtomicorp(s string) bool { return atomicorpLine.MatchString(s) }

// atomicorp reads Atomicorp's lists, with one door a line: simple, 22:1001,2002,3003, or
// advanced, 22,2000,SECRET,SECRET. A file may have both.
func (im *importer) atomicorp(lines []line) *ruleFile {
	f := &ruleFile{from: im.name, kind: fromAtomicorp, notes: []string{fmt.Sprintf(
		"The list does not say how long a door stays open. Here it is %s. Connections stay when the window ends.", duration(someWindow))}}
	for i, l := range lines {
		if im.tooMany(i, l.number) {
			return nil
		}
		// Errors do not quote the line, as it may have secrets.
		if !isAtomicorp(l.text) {
			im.fail(l.number, "this is neither PORT:KNOCK,KNOCK,KNOCK nor PORT,OTP-PORT,SECRET,SECRET")
			continue
		}
		if strings.IndexByte(l.text, ':') == strings.IndexAny(l.text, ":,") {
			f.doors = append(f.doors, im.simpleDoor(l))
		} else {
			f.doors = append(f.doors, im.otpDoor(l))
		}
	}
	if f.hasSecrets() {
		f.notes = append(f.notes, "A one-time password is valid once, and in its minute, as before. "+
			"If the clocks are not accurate to the second, write into each otp: skew = \"1m\"")
	}
	return f
}

// simpleDoor reads 22:1001,2002,3003.
func (im *importer) simpleDoor(l line) *door {
	port, list, _ := strings.Cut(l.text, ":")
	d := im.portDoor(l, port)
	for knock := range strings.SplitSeq(list, ",") {
		if p, ok := im.number(l, knock, "a knock"); ok {
			d.sequence = append(d.sequence, packet.Port{Number: p, Protocol: packet.TCP})
		}
	}
	if n := len(d.sequence); n > sequence.MaxSteps {
		im.fail(l.number, "a sequence has at most %d knocks, and this one has %d: shorten it", sequence.MaxSteps, n)
	}
	return d
}

// otpDoor reads 22,2000,SECRET,SECRET.
func (im *importer) otpDoor(l line) *door {
	fields := strings.Split(l.text, ",")
	if len(fields) != 4 {
		im.fail(l.number, "the line has %d fields and not the four of PORT,OTP-PORT,SECRET,SECRET; a secret cannot have a comma", len(fields))
		return &door{}
	}
	d := im.portDoor(l, fields[0])
	port, _ := im.number(l, fields[1], "the OTP port")
	d.otp = &passwords{packet.Port{Number: port, Protocol: packet.UDP}, strings.TrimSpace(fields[2]), strings.TrimSpace(fields[3])}
	for _, secret := range []string{d.otp.open, d.otp.close} {
		switch {
		case secret == "":
			im.fail(l.number, "a secret is empty: write an opening secret and a closing one")
		case len(secret) > otp.MaxSecret:
			im.fail(l.number, "a secret has %d bytes, and at most %d are allowed: shorten it here and at the clients", len(secret), otp.MaxSecret)
		case !exact(secret):
			im.fail(l.number, "a secret is not UTF-8 in normal form C, so a rule file cannot hold it unchanged: choose another")
		}
	}
	if d.otp.open == d.otp.close {
		im.fail(l.number, "the two secrets are the same, so one password would open and close the door: choose another for one of them")
	}
	return d
}

// portDoor begins a door that guards one TCP port.
func (im *importer) portDoor(l line, port string) *door {
	d := &door{line: l.number, window: someWindow}
	if p, ok := im.number(l, port, "the protected port"); ok {
		d.title = "port-" + strconv.Itoa(int(p))
		d.ports = []packet.PortRange{{First: p, Last: p, Protocol: packet.TCP}}
	}
	return d
}

// number reads a port number. what is its name in the error.
func (im *importer) number(l line, s, what string) (uint16, bool) {
	n, ok := packet.ParsePortNumber(strings.TrimSpace(s))
	if !ok {
		im.fail(l.number, "%s is not a whole number from 1 to 65535", what)
	}
	return n, ok
}
