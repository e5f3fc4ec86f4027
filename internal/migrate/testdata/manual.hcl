# From manual.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. The daemon marks used one-time sequences in their lists. It can write to
#    /var/lib/knockwall only. Copy the lists there with the daemon as owner,
#    and write their new paths below:
#        sudo install -o knockwall -g knockwall -m 0600 /etc/knockd/smtp_sequences /var/lib/knockwall/
#        sudo install -o knockwall -g knockwall -m 0600 /etc/knockd/smtp_sequences6 /var/lib/knockwall/
#
# 3. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 25/tcp. Under knockd your firewall drops these ports,
#    and knockd inserts an ACCEPT for one source before that DROP. knockwall
#    adds no rules to your firewall. Its table comes before the firewall, and
#    only refuses sources that have not knocked. Your firewall still decides
#    about what the table lets pass. As long as that DROP is there, nobody
#    gets in, with or without a knock. If you remove it before the wall is up,
#    everybody gets in. So replace it by an ACCEPT while the wall is up, and
#    save the rules. Other rules can stay. The command depends on your
#    firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# LogFile = /var/log/knockd.log: knockwall logs to the journal and not to a
# file. Read it with: journalctl -u knockwall

# The command names a port and no protocol, which iptables refuses. TCP is
# assumed.
# The close_sequence was the door [closeSSH].
# knockd left this door open until it was closed by a knock. Here it closes
# after 30s. Connections stay when it closes. For later connections, make the
# window longer.
door "openSSH" {
  ports          = [22]
  sequence       = [7000, 8000, 9000]
  seq_timeout    = "10s"
  window         = "30s"
  close_sequence = [9000, 8000, 7000]
  tcp_flags      = ["syn"]
}

# The command opened every port, so this door guards every port, also those
# that everybody reaches today, such as those of a web server. Leave these
# out: write into "ports" only what is to be hidden, and let your firewall
# accept just that. The knocks are left out already, and 68/udp and 546/udp,
# as DHCP needs them.
door "allTCP" {
  ports       = ["1-3332/tcp", "3334-6999/tcp", "7001-7999/tcp", "8001-8999/tcp", "9001-65535/tcp"]
  sequence    = ["2222/udp", 3333, "4444/udp"]
  seq_timeout = "15s"
  window      = "5s"
  tcp_flags   = ["syn", "ack"]
}

# The daemon marks used sequences in the list /etc/knockd/smtp_sequences. So
# the daemon must own the list, and the list must be in /var/lib/knockwall:
# see above. Then write its new path here.
door "SMTP" {
  ports              = [25]
  one_time_sequences = "/etc/knockd/smtp_sequences"
  seq_timeout        = "15s"
  window             = "5s"
  tcp_flags          = ["fin", "!ack"]
}

# [SMTP], line 32
# The daemon marks used sequences in the list /etc/knockd/smtp_sequences6. So
# the daemon must own the list, and the list must be in /var/lib/knockwall:
# see above. Then write its new path here.
door "SMTP-2" {
  ports              = [25]
  one_time_sequences = "/etc/knockd/smtp_sequences6"
  seq_timeout        = "15s"
  window             = "5s"
  tcp_flags          = ["fin", "!ack"]
}
