# From hostile.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. The daemon marks used one-time sequences in their lists. It can write to
#    /var/lib/knockwall only. Copy the lists there with the daemon as owner,
#    and write their new paths below:
#        sudo install -o knockwall -g knockwall -m 0600 '/etc/${x}/"q"' /var/lib/knockwall/
#
# 3. The commands changed the firewall for IPv4 only. The doors guard IPv6 as
#    well: there, too, nobody gets in without a knock, and your firewall for
#    IPv6 (ip6tables) has to accept the ports. To guard IPv4 only, list this
#    host's IPv4 addresses in "to" of each door.
#
# 4. knockd ran its commands as root. The daemon runs them in the sandbox of
#    knockwall.service: as the service's user, who cannot become root by sudo,
#    without a network, and with /var/lib/knockwall as the only permanent
#    folder that they can write to. If a command needs more, let another
#    systemd unit run it: /usr/share/doc/knockwall/examples/commands.hcl shows
#    how.
#
# 5. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 6. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp. Under knockd your firewall drops these ports, and
#    knockd inserts an ACCEPT for one source before that DROP. knockwall adds
#    no rules to your firewall. Its table comes before the firewall, and only
#    refuses sources that have not knocked. Your firewall still decides about
#    what the table lets pass. As long as that DROP is there, nobody gets in,
#    with or without a knock. If you remove it before the wall is up,
#    everybody gets in. So replace it by an ACCEPT while the wall is up, and
#    save the rules. Other rules can stay. The command depends on your
#    firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 7. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# LogFile = /tmp/${x}\x1b[31m\v": knockwall logs to the journal and not to a
# file. Read it with: journalctl -u knockwall

# Interface = eth0"]: a door cannot guard this interface. The doors guard all
# interfaces but lo.

# [x" { } door "y], line 4
# Target = "${source}" \ is not an address. Write to = ["192.0.2.1"] with the
# address that it stands for. Without "to", the door guards this host's own
# addresses.
# This command is left out, as a shell cannot run it: reached EOF without
# closing quote `"`, at column 45. Correct it in the old file, and import that
# again: /bin/echo "${a}" \x1b[2J "}" %{ if } '${door}' "\x01\" \u2028 \u202e

# [\xff\xfe], line 8
# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "door" {
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "/bin/echo $$KNOCKWALL_SOURCE $$$KNOCKWALL_SOURCE"]
  }
}

# [\u202e], line 11
# The daemon marks used sequences in the list /etc/${x}/"q". So the daemon
# must own the list, and the list must be in /var/lib/knockwall: see above.
# Then write its new path here.
# This door also had the Sequence 5003,27003:udp,1803. The one-time sequences
# replace it.
# This command changes the firewall, and it is not certain that it opens ports
# to the source (a rule file cannot name the interface eth -s %IP% -p tcp
# --dport 22 -j ACCEPT). So the daemon runs it as before, and the door guards
# no port. If it does open ports, write them instead of the command: ports =
# [22], with your own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "door-2" {
  one_time_sequences = "/etc/$${x}/\"q\""
  seq_timeout        = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-i", "eth -s ${source} -p tcp --dport 22 -j ACCEPT", "x"]
  }
}

# [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa], line 15
# This command opens ports, but a door cannot do the same for certain: a rule
# file cannot name the interface e th.
# So the daemon runs the command as before, and the door guards no port. To
# let the wall guard the ports, write them instead of on_open and on_close,
# and let your firewall accept them from everybody: ports = [22]
# The sandbox of knockwall.service applies: see above. Try it.
door "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "30s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-i", "e th", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab], line 18
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-2" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "30s"
}
