# From manual.conf, by `knockwall import`. What remains to be done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. Put it in force, in a session that stays open: move it into
#    /etc/knockwall.d, and
#        sudo knockwall reload
#
# 3. Then, and not before, let your firewall accept these ports, from
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
# 4. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
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
# The sandbox of knockwall.service applies: it is not root, and most of the
# system is out of its reach. Try it.
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

# The daemon marks used sequences in /etc/knockd/smtp_sequences, so it must be
# allowed to write it: by the file's group, and by ReadWritePaths= in
# `systemctl edit knockwall`.
door "SMTP" {
  ports              = [25]
  one_time_sequences = "/etc/knockd/smtp_sequences"
  seq_timeout        = "15s"
  window             = "5s"
  tcp_flags          = ["fin", "!ack"]
}

# [SMTP], line 32
# The daemon marks used sequences in /etc/knockd/smtp_sequences6, so it must
# be allowed to write it: by the file's group, and by ReadWritePaths= in
# `systemctl edit knockwall`.
door "SMTP-2" {
  ports              = [25]
  one_time_sequences = "/etc/knockd/smtp_sequences6"
  seq_timeout        = "15s"
  window             = "5s"
  tcp_flags          = ["fin", "!ack"]
}
