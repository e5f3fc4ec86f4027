# From atomicorp-simple.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 8080/tcp. So far your firewall accepts these ports
#    from who has knocked, by -m pknock, and drops them for everybody else.
#    knockwall puts nothing into your firewall. It stands before it, and only
#    holds back who has not knocked; what it lets pass, your firewall still
#    judges. As long as that DROP is there, nobody gets in, knock or no knock.
#    If it goes before the wall is up, everybody does. So, with the wall up,
#    put an ACCEPT in its place, and save it. Other rules may stay as they
#    are. Depending on what your firewall is made with (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload

# The list does not say how long a door stays open: here it is 30s each time.
# What is connected by then stays.

door "port-22" {
  ports    = [22]
  sequence = [1001, 2002, 3003, 4004]
  window   = "30s"
}

door "port-8080" {
  ports    = [8080]
  sequence = [5, 4, 3]
  window   = "30s"
}

# [port-22], line 5
door "port-22-2" {
  ports    = [22]
  sequence = [7, 9, 8]
  window   = "30s"
}
