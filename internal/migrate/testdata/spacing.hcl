# From spacing.conf, by `knockwall import`. What remains to be done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. Sequences that are good once are crossed out by the daemon, which can do
#    so in /var/lib/knockwall alone. Bring the lists there, as its own, and
#    write below where they are then:
#        sudo install -o knockwall -g knockwall -m 0600 /etc/knockd/22 /var/lib/knockwall/
#
# 3. Put it in force, in a session that stays open: move it into
#    /etc/knockwall.d, and
#        sudo knockwall reload
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 23/tcp, 24/tcp, 25/tcp. Under knockd your firewall
#    drops these ports for everybody, and knockd put an ACCEPT for the one
#    source before that DROP. knockwall puts nothing into your firewall. It
#    stands before it, and only holds back who has not knocked; what it lets
#    pass, your firewall still judges. As long as that DROP is there, nobody
#    gets in, knock or no knock. If it goes before the wall is up, everybody
#    does. So, with the wall up, put an ACCEPT in its place, and save it.
#    Other rules may stay as they are. Depending on what your firewall is made
#    with (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 5. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# UseSyslog: knockwall writes to the journal, and to no file of its own. Read
# it with: journalctl -u knockwall

# knockd listened on any interface. The doors stand before all of them but lo.

# [open ssh!], line 7
# Target: knocks and connections to 203.0.113.7. If this is an address of this
# host, and its others are to be guarded as well, take out "to".
# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "open-ssh" {
  ports       = [23]
  sequence    = [7000, "8000/udp", 9000]
  seq_timeout = "7s"
  window      = "30s"
  tcp_flags   = ["!ack", "syn"]
  to          = ["203.0.113.7"]
}

# [open ssh?], line 14
# Target = router.example.org is not an address. Write to = ["192.0.2.1"],
# with the address that it stands for; without it, this host's own addresses
# are guarded.
# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "open-ssh-2" {
  ports       = [22]
  sequence    = [1, 2, 3]
  seq_timeout = "25s"
  window      = "30s"
}

# [22], line 18
# The daemon crosses out what is used in the list /etc/knockd/22, so it has to
# be the daemon's own, in its folder /var/lib/knockwall: see above. Then write
# here where it is.
# knockd had a Sequence here, too, 4,5,6; the one-time sequences have taken
# its place.
# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "door-22" {
  ports              = [24]
  one_time_sequences = "/etc/knockd/22"
  seq_timeout        = "25s"
  window             = "30s"
}

# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "Options" {
  ports       = [25]
  sequence    = [7, 8, 9]
  seq_timeout = "25s"
  window      = "30s"
}
