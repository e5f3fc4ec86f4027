# From atomicorp-both.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. This file has secrets, so others must not read it. (If the daemon runs as
#    root, without its own group: chmod 600. To keep the secrets in their own
#    files, see /usr/share/doc/knockwall/examples/otp.hcl.)
#        chgrp knockwall THIS-FILE && chmod 640 THIS-FILE
#
# 3. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 443/tcp. So far your firewall accepts these ports from
#    sources that have knocked (-m pknock), and drops them from all others.
#    knockwall adds no rules to your firewall. Its table comes before the
#    firewall, and only refuses sources that have not knocked. Your firewall
#    still decides about what the table lets pass. As long as that DROP is
#    there, nobody gets in, with or without a knock. If you remove it before
#    the wall is up, everybody gets in. So replace it by an ACCEPT while the
#    wall is up, and save the rules. Other rules can stay. The command depends
#    on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload

# The list does not say how long a door stays open. Here it is 30s.
# Connections stay when the window ends.

# A one-time password is valid once, and in its minute, as before. If the
# clocks are not accurate to the second, write into each otp: skew = "1m"

door "port-22" {
  ports    = [22]
  sequence = [1001, 2002, 3003]
  window   = "30s"
}

door "port-443" {
  ports  = [443]
  window = "30s"

  otp {
    port         = "2000/udp"
    open_secret  = "hipjazz"
    close_secret = "superawesome"
  }
}
