# From pair.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 2222/tcp. Under knockd your firewall drops these ports for
#    everybody, and knockd put an ACCEPT for the one source before that DROP.
#    knockwall puts nothing into your firewall. It stands before it, and only
#    holds back who has not knocked; what it lets pass, your firewall still
#    judges. As long as that DROP is there, nobody gets in, knock or no knock.
#    If it goes before the wall is up, everybody does. So, with the wall up,
#    put an ACCEPT in its place, and save it. Other rules may stay as they
#    are. Depending on what your firewall is made with (ip6tables for IPv6):
#        iptables -I INPUT -i ens3 -p tcp --dport 2222 -j ACCEPT
#        ufw allow in on ens3 to any port 2222 proto tcp
#
# 4. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# UseSyslog: knockwall writes to the journal, and to no file of its own. Read
# it with: journalctl -u knockwall

# knockd listened on this interface only, and here all doors stand before it
# only. On others your firewall decides alone: what it accepts there, anybody
# can reach. Without this block they stand before all interfaces but lo. There
# is one wall: if another file has it, write the line there.
wall {
  interfaces = ["ens3"]
}

# Its close_sequence was the door [closeSSH].
# knockd left it open until it was closed by a knock; here it closes after
# 30s, and what is connected by then stays. For connections that begin later,
# make the window longer.
door "openSSH" {
  ports          = [2222]
  sequence       = [4113, 27911, 1840]
  seq_timeout    = "5s"
  window         = "30s"
  close_sequence = [1840, 27911, 4113]
  tcp_flags      = ["syn"]
}
