# From window.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. The commands changed the firewall for IPv4 only. The doors guard IPv6 as
#    well: there, too, nobody gets in without a knock, and your firewall for
#    IPv6 (ip6tables) has to accept the ports. To guard IPv4 only, list this
#    host's IPv4 addresses in "to" of each door.
#
# 3. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 4. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 80/tcp, 81/tcp, 82/tcp. Under knockd your firewall
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

# LogFile = /var/log/knockd.log, PidFile = /run/knockd.pid: knockwall logs to
# the journal and not to a file. Read it with: journalctl -u knockwall

door "openCloseSSH" {
  ports       = [22]
  sequence    = ["4113/udp", 27911, "1840/udp"]
  seq_timeout = "15s"
  window      = "1m"
  tcp_flags   = ["syn"]
}

door "defaults" {
  ports       = [80]
  sequence    = [4114, 27912, 1841]
  seq_timeout = "25s"
  window      = "10s"
}

# Seq_Timeout was 7200 s. Here it is 1h, the maximum.
# Cmd_Timeout was 604800 s. Here it is 24h, the maximum.
door "tooLong" {
  ports       = [81]
  sequence    = [4115, 27913, 1842]
  seq_timeout = "1h"
  window      = "24h"
}

# Cmd_Timeout was 0 s. Here it is one second, the minimum.
door "tooShort" {
  ports       = [82]
  sequence    = [4116, 27914, 1843]
  seq_timeout = "25s"
  window      = "1s"
}
