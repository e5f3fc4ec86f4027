# From window.conf, by `knockwall import`. What remains to be done:
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
#    everybody: 22/tcp, 80/tcp, 81/tcp, 82/tcp. Under knockd your firewall
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
# 4. Try a knock. Then stop knockd: both hear the knocks, and knockd goes on
#    to run its commands.
#        sudo systemctl disable --now knockd

# LogFile = /var/log/knockd.log, PidFile = /run/knockd.pid: knockwall writes
# to the journal, and to no file of its own. Read it with: journalctl -u
# knockwall

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

# Seq_Timeout was 7200 s; here it is 1h, the most there is.
# Cmd_Timeout was 604800 s; here it is 24h, the most there is.
door "tooLong" {
  ports       = [81]
  sequence    = [4115, 27913, 1842]
  seq_timeout = "1h"
  window      = "24h"
}

# Cmd_Timeout was 0 s; here it is one second, the least that is of use.
door "tooShort" {
  ports       = [82]
  sequence    = [4116, 27914, 1843]
  seq_timeout = "25s"
  window      = "1s"
}
