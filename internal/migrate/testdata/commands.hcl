# From commands.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. The commands changed the firewall for IPv4 only. The doors guard IPv6 as
#    well: there, too, nobody gets in without a knock, and your firewall for
#    IPv6 (ip6tables) has to accept the ports. To guard IPv4 only, list this
#    host's IPv4 addresses in "to" of each door.
#
# 3. knockd ran its commands as root. The daemon runs them in the sandbox of
#    knockwall.service: as the service's user, who cannot become root by sudo,
#    without a network, and with /var/lib/knockwall as the only permanent
#    folder that they can write to. If a command needs more, let another
#    systemd unit run it: /usr/share/doc/knockwall/examples/commands.hcl shows
#    how.
#
# 4. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 5. Then, and not before, let your firewall accept these ports, from
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
# 6. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# WARNING: the service cannot run this command: wakeonlan needs a network, and
# the service has none. /usr/share/doc/knockwall/examples/commands.hcl shows
# how another unit does it.
# The sandbox of knockwall.service applies: see above. Try it.
door "wake" {
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"

  on_open {
    command = ["/usr/bin/wakeonlan", "-i", "192.0.2.255", "00:11:22:33:44:55"]
  }
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# WARNING: the service cannot run this command: mail needs a network, and the
# service has none. /usr/share/doc/knockwall/examples/commands.hcl shows how
# another unit does it.
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "mail" {
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "mail -s \"knock from $KNOCKWALL_SOURCE ($5 of 'us')\" root < /dev/null"]
  }
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# The sandbox of knockwall.service applies: see above. Try it.
door "quoted" {
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"

  on_open {
    command = ["/usr/local/bin/notify", "a \"word\"", "single $HOME `x`", "back slash", "--from=${source}", "\u0024${source}", "$${source} %%{if}", ""]
  }
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "pipe" {
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "echo ''$KNOCKWALL_SOURCE'' \"$KNOCKWALL_SOURCE\" $${KNOCKWALL_SOURCE}x $KNOCKWALL_SOURCE \"\\\\$KNOCKWALL_SOURCE\" \"$(grep ''$KNOCKWALL_SOURCE'' /etc/hosts)\" | logger -t knock"]
  }
}

# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "logged" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "15s"

  on_open {
    command = ["/usr/bin/logger", "opened for ${source}"]
  }

  on_close {
    command = ["/bin/sh", "-c", "logger closed for $KNOCKWALL_SOURCE; logger bye"]
  }
}

# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "ended" {
  ports       = [22]
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"
  window      = "10s"

  on_close {
    command = ["/bin/sh", "-c", "/usr/local/sbin/end-sessions $KNOCKWALL_SOURCE || true"]
  }
}

door "removed" {
  ports       = [22]
  sequence    = [5007, "27007/udp", 1807]
  seq_timeout = "25s"
  window      = "10s"
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "builtin" {
  sequence    = [5008, "27008/udp", 1808]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "cd /tmp"]
  }
}

# This door runs a command and guards no port. If the command opens ports to
# the source, write them instead of it: ports = [22], with your own ports
# A shell runs this command, as under knockd. The source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "relative" {
  sequence    = [5009, "27009/udp", 1809]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "bin/notify $KNOCKWALL_SOURCE"]
  }
}

# [nothing], line 41
# This door is left out: it runs no command, so it opened nothing.

# [comment], line 44
# This door is left out: it runs no command, so it opened nothing.
