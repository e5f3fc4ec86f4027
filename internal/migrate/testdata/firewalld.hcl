# From firewalld.conf, by `knockwall import`. What remains to be done:
#
# 1. Read this file. Comments above each door say what is different from
#    before. Then check it:
#        knockwall check --config THIS-FILE
#
# 2. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 3. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 80/tcp, 443/tcp, 2222/tcp, 60000-61000/udp. Under
#    knockd your firewall drops these ports, and knockd inserts an ACCEPT for
#    one source before that DROP. knockwall adds no rules to your firewall.
#    Its table comes before the firewall, and only refuses sources that have
#    not knocked. Your firewall still decides about what the table lets pass.
#    As long as that DROP is there, nobody gets in, with or without a knock.
#    If you remove it before the wall is up, everybody gets in. So replace it
#    by an ACCEPT while the wall is up, and save the rules. Other rules can
#    stay. The command depends on your firewall (ip6tables for IPv6):
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#        firewall-cmd --permanent --add-port=22/tcp && firewall-cmd --reload
#
# 4. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

door "rich" {
  ports       = [22]
  sequence    = [5001, "27001/udp", 1801]
  seq_timeout = "25s"
  window      = "20s"
}

door "nested" {
  ports       = [22]
  sequence    = [5002, "27002/udp", 1802]
  seq_timeout = "25s"
  window      = "20s"
}

# knockd did nothing after this Cmd_Timeout, as there is no Stop_Command. Here
# the door closes after it. Connections stay when it closes.
door "inner" {
  ports       = ["60000-61000/udp"]
  sequence    = [5003, "27003/udp", 1803]
  seq_timeout = "25s"
  window      = "20s"
}

door "timeout" {
  ports       = [2222]
  sequence    = [5004, "27004/udp", 1804]
  seq_timeout = "25s"
  window      = "1m30s"
}

door "source" {
  ports       = [22, 80]
  sequence    = [5005, "27005/udp", 1805]
  seq_timeout = "25s"
  window      = "20s"
}

door "direct" {
  ports       = [22]
  sequence    = [5006, "27006/udp", 1806]
  seq_timeout = "25s"
  window      = "20s"
}

door "reload" {
  ports       = [443]
  sequence    = [5007, "27007/udp", 1807]
  seq_timeout = "25s"
  window      = "20s"
}
