# From commands.conf, by `knockwall import`. What remains to be done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. knockd ran its commands as root. Here they are run in the sandbox of
#    knockwall.service: as its user, whom no sudo makes root, without a
#    network, and with no folder that lasts to write to but
#    /var/lib/knockwall. What needs more is for another unit to do:
#    /usr/share/doc/knockwall/examples/commands.hcl shows how.
#
# 3. Put it in force, in a session that stays open: move it into
#    /etc/knockwall.d, and
#        sudo knockwall reload
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp. Under knockd your firewall drops these ports for
#    everybody, and knockd put an ACCEPT for the one source before that DROP.
#    knockwall puts nothing into your firewall. It stands before it, and only
#    holds back who has not knocked; what it lets pass, your firewall still
#    judges. As long as that DROP is there, nobody gets in, knock or no knock.
#    If it goes before the wall is up, everybody does. So, with the wall up,
#    put an ACCEPT in its place, and save it. Other rules may stay as they
#    are. Depending on what your firewall is made with (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "wake" {
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"

  on_open {
    command = ["/usr/bin/wakeonlan", "-i", "192.0.2.255", "00:11:22:33:44:55"]
  }
}

# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# A shell runs this command, as it did under knockd; the source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "mail" {
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "mail -s \"knock from $KNOCKWALL_SOURCE ($5 of 'us')\" root < /dev/null"]
  }
}

# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "quoted" {
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"

  on_open {
    command = ["/usr/local/bin/notify", "a \"word\"", "single $HOME `x`", "back slash", "--from=${source}", "\u0024${source}", "$${source} %%{if}", ""]
  }
}

# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# A shell runs this command, as it did under knockd; the source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "pipe" {
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "echo ''\"$KNOCKWALL_SOURCE\"'' \"$KNOCKWALL_SOURCE\" $${KNOCKWALL_SOURCE}x $KNOCKWALL_SOURCE \"\\\\$KNOCKWALL_SOURCE\" \"$(grep ''\"$KNOCKWALL_SOURCE\"'' /etc/hosts)\" | logger -t knock"]
  }
}

# A shell runs this command, as it did under knockd; the source is in
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

# A shell runs this command, as it did under knockd; the source is in
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

# Its Stop_Command changes the firewall and is left out, as nothing is put
# into it any more: for n in 1 2; do iptables -D INPUT -s %IP% -p tcp --dport
# 22 -j ACCEPT; done
door "removed" {
  ports       = [22]
  sequence    = [5007, "27007/udp", 1807]
  seq_timeout = "25s"
  window      = "10s"
}

# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# A shell runs this command, as it did under knockd; the source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "builtin" {
  sequence    = [5008, "27008/udp", 1808]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "cd /tmp"]
  }
}

# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# A shell runs this command, as it did under knockd; the source is in
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
# It runs no command, so that it opened nothing, and it is left out.

# [comment], line 44
# It runs no command, so that it opened nothing, and it is left out.
