# From ipfw.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 80/tcp, 443/tcp, 1000-1010/tcp, 80/udp, 443/udp,
#    1000-1010/udp. Under knockd your firewall drops these ports for
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
# 4. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# The command named the interface em0, so the door stands there only. On
# others your firewall decides alone: what it accepts there, anybody can
# reach.
door "open" {
  ports       = [22]
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "20s"
  interfaces  = ["em0"]
}

door "any" {
  ports       = [80, 443, "1000-1010/tcp", "80/udp", "443/udp", "1000-1010/udp"]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "20s"
}
