// Package sandbox knows which commands the sandbox of knockwall.service stops: on_open and
// on_close run in it, as a user who is not root, without a network.
package sandbox

import (
	"path"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// The reasons, as the end of a sentence that begins with the program.
const (
	needsRoot    = "needs root, and the service's user cannot become root"
	needsNetwork = "needs a network, and the service has none"
	needsSystemd = "asks a service that obeys root only"
	needsKernel  = "changes what the service is not allowed to change"
	notOnLinux   = "does not exist on Linux"
)

// stopped are the programs that fail in the service, with the reasons.
var stopped = map[string]string{}

func init() {
	for reason, programs := range map[string]string{
		needsRoot: "ufw sudo su doas pkexec runuser csf shorewall shorewall6 crontab at batch atrm useradd usermod userdel " +
			"iptables-legacy ip6tables-legacy iptables-legacy-save fail2ban-client apt apt-get dnf yum",
		needsNetwork: "curl wget mail mailx Mail s-nail bsd-mailx sendmail msmtp ssmtp swaks mutt mpack ssh scp sftp rsync ftp nc ncat netcat socat telnet " +
			"ping ping6 fping wakeonlan etherwake ether-wake wol dig host nslookup nmap knock ntfy telegram-send apprise pushover aws",
		needsSystemd: "firewall-cmd systemctl systemd-run service rc-service invoke-rc.d loginctl hostnamectl timedatectl nmcli docker docker-compose podman virsh " +
			"machinectl lxc reboot shutdown poweroff halt telinit",
		needsKernel: "sysctl modprobe insmod rmmod mount umount swapon swapoff hwclock chroot unshare",
		notOnLinux:  "pfctl ipfw",
	} {
		for program := range strings.FieldsSeq(programs) {
			stopped[program] = reason
		}
	}
}

// maxText is the maximum length of a text for a shell that is looked into, in bytes.
const maxText = 16 << 10

// Forbids returns why a command with these arguments fails in knockwall.service, such as
// "ufw needs root, and the service's user cannot become root". It looks into the text that
// sh -c runs. It returns "" if nothing is known against the command.
func Forbids(arguments []string) string {
	return forbids(arguments, 0)
}

func forbids(words []string, depth int) string {
	if len(words) == 0 {
		return ""
	}
	program := path.Base(words[0])
	w, isWrapper := wrappers[program]
	if program == "xargs" {
		w, isWrapper = xargs, true
	}
	switch reason := stopped[program]; {
	case reason != "":
		return program + " " + reason
	case program == "command" && len(words) > 1 && (words[1] == "-v" || words[1] == "-V"):
		// It only tells where a program is.
	case isWrapper:
		if rest := w.unwrap(words); len(rest) < len(words) {
			return forbids(rest, depth)
		}
	case IsShell(program) && len(words) > 2 && HasCommandOption(words[1]) && len(words[2]) <= maxText && depth < 4:
		return inText(words[2], depth+1)
	}
	return ""
}

// inText returns the reason for the first program of a shell's text that fails.
func inText(text string, depth int) (reason string) {
	f, err := syntax.NewParser().Parse(strings.NewReader(text), "")
	if err != nil {
		return ""
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok && reason == "" {
			var words []string
			for _, w := range call.Args {
				words = append(words, plain(w))
			}
			reason = forbids(words, depth)
		}
		return reason == ""
	})
	return reason
}

// plain returns the text of a word as far as the word is literal.
func plain(w *syntax.Word) string {
	var b strings.Builder
	for _, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(p.Value)
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			b.WriteString(plain(&syntax.Word{Parts: p.Parts}))
		}
	}
	return b.String()
}
