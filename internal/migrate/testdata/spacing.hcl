# From spacing.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. The daemon marks used one-time sequences in their lists. It can write to
#    /var/lib/knockwall only. Copy the lists there with the daemon as owner,
#    and write their new paths below:
#        sudo install -o knockwall -g knockwall -m 0600 /etc/knockd/22 /var/lib/knockwall/
#
# 3. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 23/tcp, 24/tcp, 25/tcp. Under knockd your firewall
#    drops these ports, and knockd inserts an ACCEPT for one source before
#    that DROP. knockwall adds no rules to your firewall. Its table comes
#    before the firewall, and only refuses sources that have not knocked. Your
#    firewall still decides about what the table lets pass. As long as that
#    DROP is there, nobody gets in, with or without a knock. If you remove it
#    before the wall is up, everybody gets in. So replace it by an ACCEPT
#    while the wall is up, and save the rules. Other rules can stay. The
#    command depends on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# UseSyslog: knockwall logs to the journal and not to a file. Read it with:
# journalctl -u knockwall

# knockd listened on any interface. The doors guard all interfaces but lo.

# [open ssh!], line 7
# Target: this door is for knocks and connections to 203.0.113.7. If this is
# an address of this host, remove "to" to guard the host's other addresses as
# well.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "open-ssh" {
  ports       = [23]
  sequence    = [7000, "8000/udp", 9000]
  seq_timeout = "7s"
  window      = "30s"
  tcp_flags   = ["!ack", "syn"]
  to          = ["203.0.113.7"]
}

# [open ssh?], line 14
# Target = router.example.org is not an address. Write to = ["192.0.2.1"] with
# the address that it stands for. Without "to", the door guards this host's
# own addresses.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "open-ssh-2" {
  ports       = [22]
  sequence    = [1, 2, 3]
  seq_timeout = "25s"
  window      = "30s"
}

# [22], line 18
# The daemon marks used sequences in the list /etc/knockd/22. So the daemon
# must own the list, and the list must be in /var/lib/knockwall: see above.
# Then write its new path here.
# This door also had the Sequence 4,5,6. The one-time sequences replace it.
# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "door-22" {
  ports              = [24]
  one_time_sequences = "/etc/knockd/22"
  seq_timeout        = "25s"
  window             = "30s"
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "Options" {
  ports       = [25]
  sequence    = [7, 8, 9]
  seq_timeout = "25s"
  window      = "30s"
}
