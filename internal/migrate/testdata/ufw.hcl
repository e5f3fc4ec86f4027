# From ufw.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 80/tcp, 443/tcp, 8000-8010/tcp, 22/udp, 51820/udp.
#    Under knockd your firewall drops these ports for everybody, and knockd
#    put an ACCEPT for the one source before that DROP. knockwall puts nothing
#    into your firewall. It stands before it, and only holds back who has not
#    knocked; what it lets pass, your firewall still judges. As long as that
#    DROP is there, nobody gets in, knock or no knock. If it goes before the
#    wall is up, everybody does. So, with the wall up, put an ACCEPT in its
#    place, and save it. Other rules may stay as they are. Depending on what
#    your firewall is made with (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 4. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

door "tcp" {
  ports       = [22]
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "20s"
}

# ufw opened these ports for TCP and for UDP, as its command names neither.
# Take out what is not in use.
door "first" {
  ports       = [22, "22/udp"]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "20s"
}

door "list" {
  ports       = [80, 443, "8000-8010/tcp"]
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"
  window      = "20s"
}

door "application" {
  ports       = [22]
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "20s"
}

# The command named the interface eth0, so the door stands there only. On
# others your firewall decides alone: what it accepts there, anybody can
# reach.
door "interface" {
  ports       = ["51820/udp"]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "20s"
  interfaces  = ["eth0"]
}
