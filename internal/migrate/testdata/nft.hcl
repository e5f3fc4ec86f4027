# From nft.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 80/tcp, 8000-8010/tcp, 51820/udp. Under knockd your
#    firewall drops these ports for everybody, and knockd put an ACCEPT for
#    the one source before that DROP. knockwall puts nothing into your
#    firewall. It stands before it, and only holds back who has not knocked;
#    what it lets pass, your firewall still judges. As long as that DROP is
#    there, nobody gets in, knock or no knock. If it goes before the wall is
#    up, everybody does. So, with the wall up, put an ACCEPT in its place, and
#    save it. Other rules may stay as they are. Depending on what your
#    firewall is made with (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 4. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# Its close_sequence was the door [closePlain].
# Its command is not run any more: nft delete rule inet filter input handle
# $(nft -a list chain inet filter input | grep %IP% | cut -d' ' -f2)
# knockd left it open until it was closed by a knock; here it closes after
# 30s, and what is connected by then stays. For connections that begin later,
# make the window longer.
door "plain" {
  ports          = [22]
  sequence       = [5001, "27001/udp", 1801]
  seq_timeout    = "25s"
  window         = "30s"
  close_sequence = [1801, "27001/udp", 5001]
}

door "insert" {
  ports       = [22]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "20s"
}

door "set" {
  ports       = [22, 80, "8000-8010/tcp"]
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"
  window      = "20s"
}

# knockd left it open for ever; here it closes after 30s, and what is
# connected by then stays. For connections that begin later, make the window
# longer.
door "one-word" {
  ports       = ["51820/udp"]
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "30s"
}

# The command named the interface eth0, so the door stands there only. On
# others your firewall decides alone: what it accepts there, anybody can
# reach.
# Its Stop_Command changes the firewall and is left out, as nothing is put
# into it any more: nft flush chain filter input
door "interface" {
  ports       = [22]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "20s"
  interfaces  = ["eth0"]
}
