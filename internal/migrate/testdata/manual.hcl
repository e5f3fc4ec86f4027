# From manual.conf, by `knockwall import`. What remains to be done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. Sequences that are good once are crossed out by the daemon, which can do
#    so in /var/lib/knockwall alone. Bring the lists there, as its own, and
#    write below where they are then:
#        sudo install -o knockwall -g knockwall -m 0600 /etc/knockd/smtp_sequences /var/lib/knockwall/
#        sudo install -o knockwall -g knockwall -m 0600 /etc/knockd/smtp_sequences6 /var/lib/knockwall/
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
#    everybody: 22/tcp, 25/tcp. Under knockd your firewall drops these ports
#    for everybody, and knockd put an ACCEPT for the one source before that
#    DROP. knockwall puts nothing into your firewall. It stands before it, and
#    only holds back who has not knocked; what it lets pass, your firewall
#    still judges. As long as that DROP is there, nobody gets in, knock or no
#    knock. If it goes before the wall is up, everybody does. So, with the
#    wall up, put an ACCEPT in its place, and save it. Other rules may stay as
#    they are. Depending on what your firewall is made with (ip6tables for
#    IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 6. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# LogFile = /var/log/knockd.log: knockwall writes to the journal, and to no
# file of its own. Read it with: journalctl -u knockwall

# The command names a port and no protocol, which iptables refuses; TCP is
# meant, it seems.
# Its close_sequence was the door [closeSSH].
# knockd left it open until it was closed by a knock; here it closes after
# 30s, and what is connected by then stays. For connections that begin later,
# make the window longer.
door "openSSH" {
  ports          = [22]
  sequence       = [7000, 8000, 9000]
  seq_timeout    = "10s"
  window         = "30s"
  close_sequence = [9000, 8000, 7000]
  tcp_flags      = ["syn"]
}

# It is not clear that this command opens some ports to the one source, and
# does nothing else. So it is run as before, and no port is guarded here. If
# that is what it does, write ports = [...] instead of it.
# The sandbox of knockwall.service applies: see above. Try it.
door "allTCP" {
  sequence    = ["2222/udp", 3333, "4444/udp"]
  seq_timeout = "15s"
  window      = "5s"
  tcp_flags   = ["syn", "ack"]

  on_open {
    command = ["/usr/sbin/iptables", "-A", "INPUT", "-s", "${source}", "-p", "tcp", "--syn", "-j", "ACCEPT"]
  }

  on_close {
    command = ["/usr/sbin/iptables", "-D", "INPUT", "-s", "${source}", "-p", "tcp", "--syn", "-j", "ACCEPT"]
  }
}

# The daemon crosses out what is used in the list /etc/knockd/smtp_sequences,
# so it has to be the daemon's own, in its folder /var/lib/knockwall: see
# above. Then write here where it is.
door "SMTP" {
  ports              = [25]
  one_time_sequences = "/etc/knockd/smtp_sequences"
  seq_timeout        = "15s"
  window             = "5s"
  tcp_flags          = ["fin", "!ack"]
}

# [SMTP], line 32
# The daemon crosses out what is used in the list /etc/knockd/smtp_sequences6,
# so it has to be the daemon's own, in its folder /var/lib/knockwall: see
# above. Then write here where it is.
door "SMTP-2" {
  ports              = [25]
  one_time_sequences = "/etc/knockd/smtp_sequences6"
  seq_timeout        = "15s"
  window             = "5s"
  tcp_flags          = ["fin", "!ack"]
}
