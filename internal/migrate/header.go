package migrate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/printable"
)

// header writes the steps that remain for the administrator. The main one: under knockd
// the firewall had to drop the ports, and what it drops stays dropped until somebody
// changes it.
func (f *ruleFile) header(w *writer) {
	w.comment("", "From %s, by `knockwall import`. What remains to be done:", f.from)
	h := &steps{w: w}
	if len(f.allPorts(true)) == 0 {
		h.step("NOTHING IS GUARDED: no door here has ports. Where a comment below says which line is missing, write it.")
	}
	h.step("Read this file. Comments above each door say what is different from before. Then check it:",
		"knockwall check --config THIS-FILE")
	if f.hasSecrets() {
		h.step("This file has secrets, so others must not read it. (If the daemon runs as root, without its own group: chmod 600. "+
			"To keep the secrets in their own files, see "+shipped+"otp.hcl.)",
			"chgrp knockwall THIS-FILE && chmod 640 THIS-FILE")
	}
	if lists := f.lists(); len(lists) > 0 {
		h.step("The daemon marks used one-time sequences in their lists. It can write to "+stateFolder+" only. "+
			"Copy the lists there with the daemon as owner, and write their new paths below:", lists...)
	}
	if f.onlyIPv4() {
		h.step("The commands changed the firewall for IPv4 only. The doors guard IPv6 as well: there, too, nobody gets in without a knock, " +
			"and your firewall for IPv6 (ip6tables) has to accept the ports. To guard IPv4 only, list this host's IPv4 addresses in \"to\" of each door.")
	}
	if f.hasCommands() {
		h.step("knockd ran its commands as root. The daemon runs them in the sandbox of knockwall.service: as the service's user, who cannot become root by sudo, " +
			"without a network, and with " + stateFolder + " as the only permanent folder that they can write to. If a command needs more, let another systemd unit run it: " +
			shipped + "commands.hcl shows how.")
	}
	h.putInForce()
	switch ports := f.allPorts(false); {
	case len(ports) > 0:
		f.firewall(h, ports)
	case len(f.allPorts(true)) > 0:
		h.step("Then, and not before, let your firewall accept, from everybody, the ports that you leave in the doors. knockwall adds no rules to your firewall: " +
			"what it drops stays dropped, with or without a knock.")
	}
	if f.kind == fromRecipe {
		h.step("Try a knock. Then remove the rules of the old recipe from your firewall: what they drop stays dropped.")
	}
	if f.kind == fromKnockd {
		h.step("Try a knock. Then stop knockd, which would go on to hear the knocks and to run its commands.",
			"sudo systemctl disable --now knockd")
	}
}

// putInForce writes the step that puts the rules in force.
func (h *steps) putInForce() {
	h.step("Put the rules in force, in a session that stays open. If this file is not in /etc/knockwall.d, move it there. "+
		"The former rules return unless you confirm the new ones in time, from a new connection:",
		"sudo knockwall reload --confirm 2m", "sudo knockwall confirm")
}

// usualInterface matches a name that needs no quotes in a shell.
var usualInterface = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// firewall writes the step that changes the rules of the firewall.
func (f *ruleFile) firewall(h *steps, ports []packet.PortRange) {
	was := "Under knockd your firewall drops these ports, and knockd inserts an ACCEPT for one source before that DROP."
	if f.kind == fromAtomicorp {
		was = "So far your firewall accepts these ports from sources that have knocked (-m pknock), and drops them from all others."
	}
	if f.kind == fromRecipe {
		was = "So far your firewall accepts these ports from the sources in a set, which its own rules fill after the knocks."
	}
	var all []string
	for _, r := range ports {
		all = append(all, r.String())
	}
	number, protocol, _ := strings.Cut(strings.Replace(all[0], "-", ":", 1), "/")
	behind := f.behind()
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
	if behind != "" {
		examples = []string{fmt.Sprintf("iptables -I FORWARD -d %s -p %s --dport %s -j ACCEPT", behind, protocol, number)}
	}
	h.step(fmt.Sprintf("Then, and not before, let your firewall accept these ports, from everybody: %s. %s "+
		"knockwall adds no rules to your firewall. Its table comes before the firewall, and only refuses sources that have not knocked. "+
		"Your firewall still decides about what the table lets pass. As long as that DROP is there, nobody gets in, with or without a knock. "+
		"If you remove it before the wall is up, everybody gets in. So replace it by an ACCEPT while the wall is up, and save the rules. "+
		"Other rules can stay. The command depends on your firewall (ip6tables for IPv6):",
		strings.Join(all, ", "), was), examples...)
}

// shipped is the folder of the examples in the package.
const shipped = "/usr/share/doc/knockwall/examples/"

// lists returns the commands that copy the lists of one-time sequences to stateFolder, one
// for each list.
func (f *ruleFile) lists() (commands []string) {
	for _, d := range f.doors {
		if d.left || d.oneTime == "" {
			continue
		}
		// The command stands in a comment, so the name has to be escaped for it, too.
		c := "sudo install -o knockwall -g knockwall -m 0600 " + printable.Escape(shellQuoted(d.oneTime)) + " " + stateFolder + "/"
		if !slices.Contains(commands, c) {
			commands = append(commands, c)
		}
	}
	return commands
}

// usualPath matches a path that needs no quotes in a shell.
var usualPath = regexp.MustCompile(`^[A-Za-z0-9/_.,-]+$`)

func shellQuoted(s string) string {
	if usualPath.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// behind returns the address of the first door's host if that host is behind this one, or "".
func (f *ruleFile) behind() string {
	for _, d := range f.doors {
		if !d.left && len(d.ports) > 0 {
			if d.opened != nil && d.opened.forwarded && len(d.to) > 0 {
				return d.to[0]
			}
			return ""
		}
	}
	return ""
}

// onlyIPv4 reports whether all commands that became doors with ports were for IPv4 only.
func (f *ruleFile) onlyIPv4() bool {
	found := false
	for _, d := range f.doors {
		if d.left || d.opened == nil || d.opened.reason() != "" {
			continue
		}
		if found = d.opened.onlyIPv4(); !found {
			return false
		}
	}
	return found
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

// steps writes numbered comments.
type steps struct {
	w *writer
	n int
}

// step writes the next comment, with its commands on lines of their own.
func (h *steps) step(text string, commands ...string) {
	h.n++
	var b writer
	b.comment("   ", "%s", text)
	fmt.Fprintf(h.w, "#\n# %d. %s", h.n, strings.TrimPrefix(b.String(), "#    "))
	for _, c := range commands {
		fmt.Fprintf(h.w, "#        %s\n", c)
	}
}
