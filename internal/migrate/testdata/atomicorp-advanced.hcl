# From atomicorp-advanced.conf, by `knockwall import`. What remains to be
# done:
#
# 1. Read it: what is not as it was is said above each door. Then let it be
#    read:
#        knockwall check --config THIS-FILE
#
# 2. Secrets are in it, and nobody else may read it. (Where the daemon runs as
#    root, with no group of its own: chmod 600. To keep them in files of their
#    own, see /usr/share/doc/knockwall/examples/otp.hcl.)
#        chgrp knockwall THIS-FILE && chmod 640 THIS-FILE
#
# 3. Put it in force, in a session that stays open: move it into
#    /etc/knockwall.d, and
#        sudo knockwall reload
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 443/tcp. So far your firewall accepts these ports from
#    who has knocked, by -m pknock, and drops them for everybody else.
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

# A one-time password is good once, and within its minute, as before. Where
# the clocks are not right to the second, write into each otp: skew = "1m"

door "port-22" {
  ports  = [22]
  window = "30s"

  otp {
    port         = "2000/udp"
    open_secret  = "hipjazz"
    close_secret = "superawesome"
  }
}

door "port-443" {
  ports  = [443]
  window = "30s"

  otp {
    port         = "2001/udp"
    open_secret  = "$${door}\"\\"
    close_secret = "%%{x}"
  }
}
