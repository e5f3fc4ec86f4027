# From hostile.conf, by `knockwall import`. What remains to be done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. Sequences that are good once are crossed out by the daemon, which can do
#    so in /var/lib/knockwall alone. Bring the lists there, as its own, and
#    write below where they are then:
#        sudo install -o knockwall -g knockwall -m 0600 '/etc/${x}/"q"' /var/lib/knockwall/
#
# 3. knockd ran its commands as root. Here they are run in the sandbox of
#    knockwall.service: as its user, whom no sudo makes root, without a
#    network, and with no folder that lasts to write to but
#    /var/lib/knockwall. What needs more is for another unit to do:
#    /usr/share/doc/knockwall/examples/commands.hcl shows how.
#
# 4. Put it in force, in a session that stays open: move it into
#    /etc/knockwall.d, and
#        sudo knockwall reload
#
# 5. Then, and not before, let your firewall accept these ports, from
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
# 6. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# LogFile = /tmp/${x}\x1b[31m\v": knockwall writes to the journal, and to no
# file of its own. Read it with: journalctl -u knockwall

# Interface = eth0"]: this can be no interface of a door. The doors stand
# before all but lo.

# [x" { } door "y], line 4
# Target = "${source}" \ is not an address. Write to = ["192.0.2.1"], with the
# address that it stands for; without it, this host's own addresses are
# guarded.
# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# A shell runs this command, as it did under knockd; the source is in
# $KNOCKWALL_SOURCE. The sandbox of knockwall.service applies: see above. Try
# it.
door "x-door-y" {
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"

  on_open {
    command = ["/bin/sh", "-c", "/bin/echo \"$${a}\" \u001b[2J \"}\" %%{ if } '$${door}' \"\u0001\\\" \u2028 \u202e"]
  }
}

# [\xff\xfe], line 8
# It runs a command, and guards no port. If the command opens ports to who has
# knocked, write ports = [...] instead of it.
# A shell runs this command, as it did under knockd; the source is in
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
# The daemon crosses out what is used in the list /etc/${x}/"q", so it has to
# be the daemon's own, in its folder /var/lib/knockwall: see above. Then write
# here where it is.
# knockd had a Sequence here, too, 5003,27003:udp,1803; the one-time sequences
# have taken its place.
# It is not clear that this command opens some ports to the one source, and
# does nothing else. So it is run as before, and no port is guarded here. If
# that is what it does, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "door-2" {
  one_time_sequences = "/etc/$${x}/\"q\""
  seq_timeout        = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-i", "eth -s ${source} -p tcp --dport 22 -j ACCEPT", "x"]
  }
}

# [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa], line 15
# It is not clear that this command opens some ports to the one source, and
# does nothing else. So it is run as before, and no port is guarded here. If
# that is what it does, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"

  on_open {
    command = ["iptables", "-I", "INPUT", "-i", "e th", "-s", "${source}", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"]
  }
}

# [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab], line 18
# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-2" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "30s"
}
