# From knockd.conf, knockd.default.conf, by `knockwall import`. What remains
# to be done:
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
#    everybody: 22/tcp. Under knockd your firewall drops these ports, and
#    knockd inserts an ACCEPT for one source before that DROP. knockwall adds
#    no rules to your firewall. Its table comes before the firewall, and only
#    refuses sources that have not knocked. Your firewall still decides about
#    what the table lets pass. As long as that DROP is there, nobody gets in,
#    with or without a knock. If you remove it before the wall is up,
#    everybody gets in. So replace it by an ACCEPT while the wall is up, and
#    save the rules. Other rules can stay. The command depends on your
#    firewall (ip6tables for IPv6):
#        iptables -I INPUT -i ens3 -p tcp --dport 22 -j ACCEPT
#        ufw allow in on ens3 to any port 22 proto tcp
#
# 5. Try a knock. Then stop knockd, which would go on to hear the knocks and
#    to run its commands.
#        sudo systemctl disable --now knockd

# knockd was started with -4: it heard no IPv6. Here IPv6 sources that knock
# are admitted, too.

# knockd listened on this interface only, and here all doors guard only this
# one. On other interfaces your firewall decides alone: everybody can reach
# what it accepts there. Without this block the doors guard all interfaces but
# lo. Only one wall block is allowed: if another file has one, write this line
# there.
wall {
  interfaces = ["ens3"]
}

# knockd left this door open for ever. Here it closes after 30s. Connections
# stay when it closes. For later connections, make the window longer.
door "ssh" {
  ports       = [22]
  sequence    = [5101, "27101/udp", 1901]
  seq_timeout = "25s"
  window      = "30s"
}
