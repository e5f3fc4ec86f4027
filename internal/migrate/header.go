package migrate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
)

// header says what is to be done before the rule file is of use. Above all: what
// the old firewall drops stays dropped, and with knockd it had to drop the ports.
func (f *ruleFile) header(w *writer) {
	w.comment("", "From %s, by `knockwall import`. What remains to be done:", f.from)
	h := &steps{w: w}
	h.step("Read it: what is not as it was is said above each door. Then let it be read:",
		"knockwall check --config THIS-FILE")
	if f.hasSecrets() {
		h.step("Secrets are in it, and nobody else may read it. (Where the daemon runs as root, with no group of its own: chmod 600. "+
			"To keep them in files of their own, see "+shipped+"otp.hcl.)",
			"chgrp knockwall THIS-FILE && chmod 640 THIS-FILE")
	}
	if lists := f.lists(); len(lists) > 0 {
		h.step("Sequences that are good once are crossed out by the daemon, which can do so in "+stateFolder+" alone. "+
			"Bring the lists there, as its own, and write below where they are then:", lists...)
	}
	if f.hasCommands() {
		h.step("knockd ran its commands as root. Here they are run in the sandbox of knockwall.service: as its user, whom no sudo makes root, " +
			"without a network, and with no folder that lasts to write to but " + stateFolder + ". What needs more is for another unit to do: " +
			shipped + "commands.hcl shows how.")
	}
	h.step("Put it in force, in a session that stays open: move it into /etc/knockwall.d, and",
		"sudo knockwall reload")
	if ports := f.allPorts(); len(ports) > 0 {
		f.firewall(h, ports)
	}
	if f.kind == fromKnockd {
		h.step("Try a knock. Then stop knockd: both hear the knocks, and knockd goes on to run its commands.",
			"sudo systemctl disable --now knockd")
	}
}

// usualInterface is a name that nobody need quote for a shell.
var usualInterface = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// firewall says what must become of the rules of the firewall.
func (f *ruleFile) firewall(h *steps, ports []packet.PortRange) {
	was := "Under knockd your firewall drops these ports for everybody, and knockd put an ACCEPT for the one source before that DROP."
	if f.kind == fromAtomicorp {
		was = "So far your firewall accepts these ports from who has knocked, by -m pknock, and drops them for everybody else."
	}
	var all []string
	for _, r := range ports {
		all = append(all, r.String())
	}
	number, protocol, _ := strings.Cut(strings.Replace(all[0], "-", ":", 1), "/")
	examples := []string{
		fmt.Sprintf("iptables -I INPUT -p %s --dport %s -j ACCEPT", protocol, number),
		fmt.Sprintf("ufw allow %s/%s", number, protocol),
		fmt.Sprintf("firewall-cmd --permanent --add-port=%s/%s && firewall-cmd --reload", strings.Replace(number, ":", "-", 1), protocol),
	}
	if usualInterface.MatchString(f.interfaces) {
		examples = []string{
			fmt.Sprintf("iptables -I INPUT -i %s -p %s --dport %s -j ACCEPT", f.interfaces, protocol, number),
			fmt.Sprintf("ufw allow in on %s to any port %s proto %s", f.interfaces, number, protocol),
		}
	}
	h.step(fmt.Sprintf("Then, and not before, let your firewall accept these ports, from everybody: %s. %s "+
		"knockwall puts nothing into your firewall. It stands before it, and only holds back who has not knocked; "+
		"what it lets pass, your firewall still judges. As long as that DROP is there, nobody gets in, knock or no knock. "+
		"If it goes before the wall is up, everybody does. So, with the wall up, put an ACCEPT in its place, and save it. "+
		"Other rules may stay as they are. Depending on what your firewall is made with (ip6tables for IPv6):",
		strings.Join(all, ", "), was), examples...)
}

// shipped is the folder of the examples that come with the package.
const shipped = "/usr/share/doc/knockwall/examples/"

// lists returns what brings the lists of one-time sequences to where the daemon can
// write, a command for each list.
func (f *ruleFile) lists() (commands []string) {
	for _, d := range f.doors {
		if d.left || d.oneTime == "" {
			continue
		}
		// A name that is not for a shell as it is stands in a comment only, too.
		c := "sudo install -o knockwall -g knockwall -m 0600 " + printable.Escape(shellQuoted(d.oneTime)) + " " + stateFolder + "/"
		if !slices.Contains(commands, c) {
			commands = append(commands, c)
		}
	}
	return commands
}

// usualPath needs no quotes in a shell.
var usualPath = regexp.MustCompile(`^[A-Za-z0-9/_.,-]+$`)

func shellQuoted(s string) string {
	if usualPath.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (f *ruleFile) hasCommands() bool {
	return slices.ContainsFunc(f.doors, func(d *door) bool { return !d.left && (d.onOpen != nil || d.onClose != nil) })
}

func (f *ruleFile) hasSecrets() bool {
	for _, d := range f.doors {
		if d.otp != nil {
			return true
		}
	}
	return false
}

// steps are numbered comments.
type steps struct {
	w *writer
	n int
}

// step writes the next one, with the commands that it takes, one a line.
func (h *steps) step(text string, commands ...string) {
	h.n++
	var b writer
	b.comment("   ", "%s", text)
	fmt.Fprintf(h.w, "#\n# %d. %s", h.n, strings.TrimPrefix(b.String(), "#    "))
	for _, c := range commands {
		fmt.Fprintf(h.w, "#        %s\n", c)
	}
}
