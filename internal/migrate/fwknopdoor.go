package migrate

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"

	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
	"github.com/knockwall/knockwall/ruleset"
)

// This file turns the stanzas of access.conf into doors: one for each set of ports, with one
// fwknop block for each stanza.

// fwknopDoor is a door of the rule file.
type fwknopDoor struct {
	ports   []packet.PortRange
	to      []string
	window  time.Duration
	onOpen  string // a command of fwknopd; "": none
	onClose string
	people  []*fwknopPerson
	asks    bool // somebody has to complete its person
}

// fwknopPerson is a block of a door.
type fwknopPerson struct {
	title, key, hmacKey     string // keys in base64
	hmac, user, expires     string // "": not written
	signed                  bool
	from                    []string
	stanza                  *stanza
	notes                   []string
	name, keyFile, hmacFile string // as they are written
}

// completion ends the note for a person whose block somebody has to complete.
const completion = " Without that this person's datagrams would open to anybody, so complete the line, remove the # from the door's lines, and let your firewall accept its ports, too."

func (p *fwknopPerson) note(format string, a ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, a...))
}

// same reports whether two doors differ only in their persons.
func (d *fwknopDoor) same(o *fwknopDoor) bool {
	return slices.Equal(d.ports, o.ports) && slices.Equal(d.to, o.to) && d.window == o.window && d.onOpen == o.onOpen && d.onClose == o.onClose && d.asks == o.asks
}

// knows reports whether the door has a person with this HMAC key. Then nobody could tell
// which of two persons has sent a datagram.
func (d *fwknopDoor) knows(hmacKey string) bool {
	return slices.ContainsFunc(d.people, func(p *fwknopPerson) bool { return p.hmacKey == hmacKey })
}

// foreign are variables that have no counterpart, with the reason.
var foreign = map[string]string{
	"ENABLE_CMD_EXEC":      "a client could send commands. Here a client can only open the door: write what should run as on_open",
	"ENABLE_CMD_SUDO_EXEC": "it is about commands of clients, which are not run here",
	"CMD_EXEC_USER":        "it is about commands of clients, which are not run here",
	"CMD_EXEC_GROUP":       "it is about commands of clients, which are not run here",
	"CMD_SUDO_EXEC_USER":   "it is about commands of clients, which are not run here",
	"CMD_SUDO_EXEC_GROUP":  "it is about commands of clients, which are not run here",
	"SUDO_EXE":             "it is about commands of clients, which are not run here",
	"FORCE_SNAT":           "knockwall makes no NAT rules: keep such a rule in your firewall",
	"FORCE_MASQUERADE":     "knockwall makes no NAT rules: keep such a rule in your firewall",
	"FORWARD_ALL":          "a door guards the ports that it lists",
	"DISABLE_DNAT":         "knockwall makes no NAT rules",
	"MAX_FW_TIMEOUT":       "a client can ask for a shorter window than the door's (fwknop -f), and never for a longer one",
}

// understood are the variables that are translated.
var understood = []string{
	"SOURCE", "DESTINATION", "OPEN_PORTS", "RESTRICT_PORTS", "KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "HMAC_DIGEST_TYPE", "HMAC_TYPE",
	"FW_ACCESS_TIMEOUT", "REQUIRE_USERNAME", "REQUIRE_SOURCE_ADDRESS", "REQUIRE_SOURCE", "ACCESS_EXPIRE", "ACCESS_EXPIRE_EPOCH",
	"CMD_CYCLE_OPEN", "CMD_CYCLE_CLOSE", "CMD_CYCLE_TIMER", "ENCRYPTION_MODE", "FORCE_NAT", "DATA_COLLECT_MODE", "PERMIT_CLIENT_PORTS", "PERMIT_CLIENT_TIMEOUT",
}

// translate turns a stanza into a door and its only person. reason says why it is left out.
func (im *fwknopImport) translate(s *stanza) (d *fwknopDoor, p *fwknopPerson, reason string) {
	d, p = &fwknopDoor{}, &fwknopPerson{stanza: s}
	hasKey := s.has("KEY") || s.has("KEY_BASE64")
	hasHMAC := s.has("HMAC_KEY") || s.has("HMAC_KEY_BASE64")
	isGPG := s.hasPrefix("GPG_")
	mode := strings.ToLower(s.values["ENCRYPTION_MODE"].text)
	switch {
	case isGPG && !hasKey, mode == "asymmetric":
		return nil, nil, "it is for GPG keys, which knockwall does not read. Give this person keys by `fwknop --key-gen`, or a keyed knock with an ssh key."
	case !hasKey:
		return nil, nil, "it has no KEY and no KEY_BASE64."
	case slices.ContainsFunc(s.order, func(name string) bool { return s.values[name].text == changeMe }):
		return nil, nil, "its keys are still " + changeMe + ". Make keys by `fwknop --key-gen`."
	case mode == "legacy":
		return nil, nil, "its ENCRYPTION_MODE is legacy, in which the client sends no HMAC. Remove the mode from the client's .fwknoprc, and add HMAC_KEY_BASE64 in both places."
	case !hasHMAC:
		return nil, nil, "it has no HMAC_KEY_BASE64. Without an HMAC, a datagram can be changed on its way. Make one by `fwknop --key-gen`, and write it here and into the client's .fwknoprc with USE_HMAC Y."
	}
	if isGPG {
		p.note("The GPG keys of this stanza are left out: knockwall does not read them.")
	}
	im.keys(s, p)
	d.asks = !im.conditions(s, p)
	im.opening(s, d, p)
	for _, name := range s.order {
		why, isForeign := foreign[name]
		switch {
		case isForeign && !strings.EqualFold(s.values[name].text, "N"):
			p.note("%s has no counterpart: %s.", name, why)
		case !isForeign && !slices.Contains(understood, name) && !strings.HasPrefix(name, "GPG_"):
			p.note("%s is not known, and left out.", name)
		}
	}
	return d, p, ""
}

// keys reads the keys.
func (im *fwknopImport) keys(s *stanza, p *fwknopPerson) {
	p.key, p.hmacKey = im.key(s, "KEY", wire.MaxKey), im.key(s, "HMAC_KEY", wire.MaxHMACKey)
	if p.key != "" && strings.TrimRight(p.key, "=") == strings.TrimRight(p.hmacKey, "=") {
		im.fail(s.file, s.line, "KEY and HMAC_KEY of this stanza are the same: make two keys by `fwknop --key-gen`")
	}
	digest, ok := s.values["HMAC_DIGEST_TYPE"]
	if !ok {
		return
	}
	kind, err := wire.ParseHMAC(digest.text)
	if err != nil {
		im.fail(digest.file, digest.line, "HMAC_DIGEST_TYPE: %v", err)
	}
	if kind != wire.SHA256 {
		p.hmac = kind.String()
	}
}

// conditions reads who may open the door from where, and until when. It returns false if a
// condition got a value that only holds its place.
func (im *fwknopImport) conditions(s *stanza, p *fwknopPerson) (isWhole bool) {
	isWhole = true
	p.user = s.values["REQUIRE_USERNAME"].text
	p.title = p.user
	if base := strings.TrimSuffix(path.Base(s.file), ".conf"); p.title == "" && base != "access" && base != "stdin" && base != "-" {
		p.title = base // a file for one person, such as /etc/fwknop/people/alice.conf
	}
	if !exact(p.user) {
		p.note("REQUIRE_USERNAME is not UTF-8 in normal form C, which a rule file cannot hold. Write the user's name in ASCII into \"user\", as the client sends it (SPOOF_USER)." + completion)
		p.user, isWhole = "somebody", false
	}
	p.signed = s.yes("REQUIRE_SOURCE_ADDRESS") || s.yes("REQUIRE_SOURCE")
	var others []string
	p.from, others = addresses(s.values["SOURCE"].text)
	if len(others) > 0 {
		note := fmt.Sprintf("SOURCE had %s, which is not an address. Write the addresses: from = [%q].", strings.Join(others, ", "), someAddresses)
		if len(p.from) == 0 {
			p.from, isWhole = []string{someAddresses}, false
			note += completion
		}
		p.note("%s", note)
	}
	if v, ok := s.values["ACCESS_EXPIRE"]; ok {
		date, err := time.Parse("01/02/2006", v.text)
		if err != nil {
			im.fail(v.file, v.line, "ACCESS_EXPIRE is not a date: write MM/DD/YYYY")
		}
		p.expires = date.Format(time.DateOnly)
	}
	if v, ok := s.values["ACCESS_EXPIRE_EPOCH"]; ok {
		seconds, err := strconv.ParseInt(v.text, 10, 34)
		if err != nil || seconds < 0 {
			im.fail(v.file, v.line, "ACCESS_EXPIRE_EPOCH is not a number of seconds since 1970")
		}
		p.expires = time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	}
	return isWhole
}

// someAddresses stands for addresses that somebody has to write. They are nobody's: RFC 5737.
const someAddresses = "192.0.2.0/24"

// addresses reads a list of SOURCE or DESTINATION. ANY is no address. others are the items
// that are no addresses.
func addresses(list string) (found, others []string) {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(item); err == nil && addr.Zone() == "" {
				prefix = netip.PrefixFrom(addr, addr.BitLen())
			}
		}
		switch {
		case strings.EqualFold(item, "ANY") || err == nil && prefix.Bits() == 0:
			return nil, nil
		case err != nil || !prefix.IsValid() || prefix.Addr().Is4In6():
			others = append(others, item)
		case prefix.IsSingleIP():
			found = append(found, prefix.Addr().String())
		default:
			found = append(found, prefix.Masked().String())
		}
	}
	return found, others
}

// usualTimeout is the default of FW_ACCESS_TIMEOUT in seconds.
const usualTimeout = "30"

// opening reads what opens, and for how long.
func (im *fwknopImport) opening(s *stanza, d *fwknopDoor, p *fwknopPerson) {
	timeout := cmp.Or(s.values["FW_ACCESS_TIMEOUT"].text, usualTimeout)
	if d.onOpen = s.values["CMD_CYCLE_OPEN"].text; d.onOpen != "" {
		timeout = cmp.Or(s.values["CMD_CYCLE_TIMER"].text, timeout)
		if d.onClose = s.values["CMD_CYCLE_CLOSE"].text; d.onClose == "NONE" {
			d.onClose = ""
		}
	}
	seconds, err := strconv.ParseUint(timeout, 10, 31)
	if err != nil {
		im.fail(s.file, s.line, "the time that this stanza opens for is not a whole number of seconds")
	}
	switch d.window = time.Duration(seconds) * time.Second; {
	case d.window < time.Second:
		p.note("FW_ACCESS_TIMEOUT was %s s. Here it is one second, the minimum.", timeout)
		d.window = time.Second
	case d.window > ruleset.MaxWindow:
		p.note("FW_ACCESS_TIMEOUT was %s s. Here it is %s, the maximum. Connections stay when the window ends.", timeout, duration(ruleset.MaxWindow))
		d.window = ruleset.MaxWindow
	}
	open, ok := im.ports(s, "OPEN_PORTS")
	closed, _ := im.ports(s, "RESTRICT_PORTS")
	forbidden := map[packet.Port]bool{}
	for _, p := range closed {
		forbidden[p] = true
	}
	d.ports = packet.MergeRanges(packet.Ranges(slices.DeleteFunc(open, func(p packet.Port) bool { return forbidden[p] })))
	if ok && len(d.ports) == 0 {
		im.fail(s.file, s.line, "RESTRICT_PORTS of this stanza forbids all of its OPEN_PORTS")
	}
	if !ok && len(closed) > 0 && d.onOpen == "" {
		p.note("RESTRICT_PORTS was %s. Leave these out of \"ports\".", s.values["RESTRICT_PORTS"].text)
	}
	var others []string
	if d.to, others = addresses(cmp.Or(s.values["DESTINATION"].text, "ANY")); len(others) > 0 {
		p.note("DESTINATION had %s, which is not an address. Without \"to\", the door guards this host's own addresses.", strings.Join(others, ", "))
	}
	if v, ok := s.values["FORCE_NAT"]; ok {
		im.forceNAT(v, d, p)
	}
}

// ports reads a list such as tcp/22,udp/53.
func (im *fwknopImport) ports(s *stanza, name string) (ports []packet.Port, ok bool) {
	v, ok := s.values[name]
	if !ok {
		return nil, false
	}
	for item := range strings.SplitSeq(v.text, ",") {
		protocol, number, _ := strings.Cut(strings.ToLower(strings.TrimSpace(item)), "/")
		p, err := packet.ParsePort(strings.TrimSpace(number) + "/" + strings.TrimSpace(protocol))
		if err != nil {
			im.fail(v.file, v.line, "%s is a list such as tcp/22,udp/53", name)
			return nil, true
		}
		ports = append(ports, p)
	}
	return ports, true
}

// forceNAT proposes the rule for a FORCE_NAT such as "10.1.2.3 22".
func (im *fwknopImport) forceNAT(v setting, d *fwknopDoor, p *fwknopPerson) {
	fields := strings.Fields(strings.ReplaceAll(v.text, ",", " "))
	if len(fields) != 2 {
		p.note("FORCE_NAT was %s. knockwall makes no NAT rules: write this one into your firewall.", v.text)
		return
	}
	from := "PORT"
	if len(d.ports) > 0 && d.ports[0].First == d.ports[0].Last {
		from = strconv.Itoa(int(d.ports[0].First))
	}
	p.note("FORCE_NAT led connections to %s port %s. knockwall makes no NAT rules. Write this one into your firewall, for everybody: "+
		"iptables -t nat -A PREROUTING -p tcp --dport %s -j DNAT --to-destination %s:%s. The door guards the port before it.", fields[0], fields[1], from, fields[0], fields[1])
}

// write writes the rule file, and returns the files with the keys.
func (im *fwknopImport) write(name, folder string) (rules []byte, keys []KeyFile) {
	var doors []*fwknopDoor
	var body, left writer
	names := map[string]bool{}
	for i, s := range im.stanzas {
		d, p, reason := im.translate(s)
		if reason != "" {
			left.WriteByte('\n')
			left.comment("", "%s line %d: this stanza is left out: %s", s.file, s.line, reason)
			continue
		}
		if p.title == "" {
			p.title = "person-" + strconv.Itoa(i+1)
			p.note("The stanza had no name for this person. Write one.")
		}
		p.name = unique(names, p.title)
		p.keyFile, p.hmacFile = p.name+".key", p.name+".hmac"
		keys = append(keys, KeyFile{p.keyFile, []byte(p.key + "\n")}, KeyFile{p.hmacFile, []byte(p.hmacKey + "\n")})
		at := slices.IndexFunc(doors, func(o *fwknopDoor) bool { return o.same(d) && !o.knows(p.hmacKey) })
		if at < 0 {
			at = len(doors)
			doors = append(doors, d)
		}
		doors[at].people = append(doors[at].people, p)
	}
	doorNames := map[string]bool{}
	for _, d := range doors {
		im.door(&body, d, unique(doorNames, d.title()), folder)
	}
	var w writer
	im.header(&w, name, folder, doors)
	w.WriteString(body.String())
	w.WriteString(left.String())
	return hclwrite.Format([]byte(w.String())), keys
}

// title returns what to call the door: after its first port.
func (d *fwknopDoor) title() string {
	if len(d.ports) == 0 {
		return "fwknop"
	}
	if first := d.ports[0]; first.First == 22 && first.Protocol == packet.TCP {
		return "ssh"
	}
	return "port-" + strconv.Itoa(int(d.ports[0].First))
}

// door writes a door. A door that somebody has to complete is written as a comment.
func (im *fwknopImport) door(w *writer, d *fwknopDoor, name, folder string) {
	w.WriteByte('\n')
	for _, p := range d.people {
		for _, note := range p.notes {
			w.comment("", "%s, line %d: %s", p.name, p.stanza.line, note)
		}
	}
	var b writer
	fmt.Fprintf(&b, "door %s {\n", quoted(name))
	isWhole := len(d.ports) > 0 || d.onOpen != ""
	switch {
	case d.onOpen != "":
		w.comment("", "fwknopd ran a command and changed no firewall by itself, so this door guards no port. If the command opens ports to the source, write ports = [...] instead of it. "+
			"The daemon runs it in the sandbox of knockwall.service: not as root, and without a network. If it needs more, let another systemd unit run it: "+shipped+"commands.hcl shows how.")
	case isWhole:
		fmt.Fprintf(&b, "ports = %s\n", portText(d.ports))
	default:
		w.comment("", "Without OPEN_PORTS, fwknopd opened whatever port a client asked for. A door guards the ports that it lists: complete the line with \"ports\", and remove the # from these lines.")
		b.WriteString("ports = [22]\n")
	}
	b.list("to", d.to)
	b.duration("window", d.window)
	for _, p := range d.people {
		im.person(&b, p, folder)
	}
	isWhole = d.command(&b, w, "on_open", d.onOpen) && isWhole && !d.asks
	isWhole = d.command(&b, w, "on_close", d.onClose) && isWhole
	b.WriteString("}\n")
	if isWhole {
		w.WriteString(b.String())
		return
	}
	for line := range strings.Lines(string(hclwrite.Format([]byte(b.String())))) {
		w.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
}

func (im *fwknopImport) person(w *writer, p *fwknopPerson, folder string) {
	fmt.Fprintf(w, "\nfwknop %s {\n", quoted(p.name))
	if im.port != wire.Port {
		fmt.Fprintf(w, "port = %s\n", quoted(strconv.Itoa(int(im.port))+"/udp"))
	}
	fmt.Fprintf(w, "key = file(%s)\nhmac_key = file(%s)\n", quoted(path.Join(folder, p.keyFile)), quoted(path.Join(folder, p.hmacFile)))
	for _, attribute := range [][2]string{{"hmac", p.hmac}, {"user", p.user}, {"expires", p.expires}} {
		if attribute[1] != "" {
			fmt.Fprintf(w, "%s = %s\n", attribute[0], quoted(attribute[1]))
		}
	}
	if p.signed {
		w.WriteString("source = \"signed\"\n")
	}
	w.list("from", p.from)
	w.WriteString("}\n")
}

// needsShell matches a command that only a shell understands.
var needsShell = regexp.MustCompile("[\"'`\\\\$|&;<>()*?\\[\\]#~{}!\n]")

// cycled matches what fwknopd replaces in commands.
var cycled = regexp.MustCompile(`\$(?:IP|SRC|PKT_SRC|DST|PORT|PROTO|TIMEOUT)\b`)

// command writes a command of fwknopd. It returns false, and says why above the door, if
// somebody has to complete the command.
func (d *fwknopDoor) command(b, above *writer, name, text string) bool {
	one := len(d.ports) == 1 && d.ports[0].First == d.ports[0].Last
	missing := ""
	replaced := func(source string) string {
		return cycled.ReplaceAllStringFunc(text, func(v string) string {
			switch {
			case v == "$IP", v == "$SRC", v == "$PKT_SRC":
				return source
			case v == "$PORT" && one:
				return strconv.Itoa(int(d.ports[0].First))
			case v == "$PROTO" && one:
				return d.ports[0].Protocol.String()
			case v == "$TIMEOUT":
				return strconv.Itoa(int(d.window / time.Second))
			}
			missing = v
			return v
		})
	}
	words := replaced(placeholder)
	switch {
	case text == "":
	case missing != "":
		above.comment("", "%s: the command has %s, which a door does not have. Write a value in its place, and remove the # from these lines.", name, missing)
		fmt.Fprintf(b, "\n%s {\ncommand = [\"/bin/sh\", \"-c\", %s]\n}\n", name, quoted(text))
		return false
	case !exact(text):
		above.comment("", "%s: the command is not UTF-8 in normal form C. Write it anew, and remove the # from these lines.", name)
		fmt.Fprintf(b, "\n%s {\ncommand = []\n}\n", name)
		return false
	case needsShell.MatchString(words):
		fmt.Fprintf(b, "\n%s {\ncommand = [\"/bin/sh\", \"-c\", %s]\n}\n", name, quoted(replaced("$KNOCKWALL_SOURCE")))
	default:
		var all []string
		for _, word := range strings.Fields(words) {
			all = append(all, argument(word))
		}
		fmt.Fprintf(b, "\n%s {\ncommand = [%s]\n}\n", name, strings.Join(all, ", "))
	}
	return true
}

// header writes the steps that remain for the administrator.
func (im *fwknopImport) header(w *writer, name, folder string, doors []*fwknopDoor) {
	w.comment("", "From %s, by `knockwall import`. What remains to be done:", name)
	h := &steps{w: w}
	h.step("Read this file. Comments above each door say what is different from before.")
	if len(doors) > 0 {
		h.step("The keys are in files of their own, one for each line with file(...). If they are not there yet, this writes them:",
			"sudo knockwall import --secrets "+shellQuoted(folder)+" "+printable.Escape(shellQuoted(name))+" > THIS-FILE")
	}
	h.step("Check this file:", "knockwall check --config THIS-FILE")
	h.putInForce()
	if ports := guardedBy(doors); len(ports) > 0 {
		number, protocol, _ := strings.Cut(ports[0].String(), "/")
		number = strings.Replace(number, "-", ":", 1)
		var all []string
		for _, r := range ports {
			all = append(all, r.String())
		}
		h.step(fmt.Sprintf("Then, and not before, let your firewall accept these ports, from everybody: %s. Under fwknopd your firewall drops them, and fwknopd adds an ACCEPT for one source. "+
			"knockwall adds no rules to your firewall. Its table comes before the firewall, and only refuses sources that have not knocked. As long as that DROP is there, nobody gets in. "+
			"If you remove it before the wall is up, everybody gets in. So replace it by an ACCEPT while the wall is up, and save the rules:", strings.Join(all, ", ")),
			fmt.Sprintf("iptables -I INPUT -p %s --dport %s -j ACCEPT", protocol, number),
			fmt.Sprintf("ufw allow %s/%s", number, protocol))
	}
	h.step("Try it with a client. The clients need no change. Then stop fwknopd:", "sudo systemctl disable --now fwknop-server")
	for _, note := range im.notes {
		w.WriteByte('\n')
		w.comment("", "%s", note)
	}
}

// guardedBy returns the ports of the doors that are whole.
func guardedBy(doors []*fwknopDoor) (ports []packet.PortRange) {
	for _, d := range doors {
		if d.onOpen == "" && !d.asks {
			ports = append(ports, d.ports...)
		}
	}
	return packet.MergeRanges(ports)
}
