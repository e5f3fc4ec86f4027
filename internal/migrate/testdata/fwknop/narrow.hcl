# From /etc/fwknop/access.conf, by `knockwall import`. What remains to be
# done:
#
# 1. Read this file. Comments above each door say what is different from
#    before.
#
# 2. The keys are in files of their own, one for each line with file(...). If
#    they are not there yet, this writes them:
#        sudo knockwall import --secrets /etc/knockwall.secrets /etc/fwknop/access.conf > THIS-FILE
#
# 3. Check this file:
#        knockwall check --config THIS-FILE
#
# 4. Put the rules in force, in a session that stays open. If this file is not
#    in /etc/knockwall.d, move it there. The former rules return unless you
#    confirm the new ones in time, from a new connection:
#        sudo knockwall reload --confirm 2m
#        sudo knockwall confirm
#
# 5. Then, and not before, let your firewall accept these ports, from
#    everybody: 22/tcp, 24/tcp, 23/udp. Under fwknopd your firewall drops
#    them, and fwknopd adds an ACCEPT for one source. knockwall adds no rules
#    to your firewall. Its table comes before the firewall, and only refuses
#    sources that have not knocked. As long as that DROP is there, nobody gets
#    in. If you remove it before the wall is up, everybody gets in. So replace
#    it by an ACCEPT while the wall is up, and save the rules:
#        iptables -I INPUT -p tcp --dport 22 -j ACCEPT
#        ufw allow 22/tcp
#
# 6. Try it with a client. The clients need no change. Then stop fwknopd:
#        sudo systemctl disable --now fwknop-server

door "ssh" {
  ports  = [22, 24, "23/udp"]
  window = "30s"

  fwknop "alice" {
    key      = file("/etc/knockwall.secrets/alice.key")
    hmac_key = file("/etc/knockwall.secrets/alice.hmac")
    user     = "alice"
  }
}

# bob, line 10: SOURCE had host.example.org, other.example.org, which is not
# an address. Write the addresses: from = ["192.0.2.0/24"]. Without that this
# person's datagrams would open to anybody, so complete the line, remove the #
# from the door's lines, and let your firewall accept its ports, too.
# door "ssh-2" {
#   ports  = [22]
#   window = "30s"
#
#   fwknop "bob" {
#     key      = file("/etc/knockwall.secrets/bob.key")
#     hmac_key = file("/etc/knockwall.secrets/bob.hmac")
#     user     = "bob"
#     from     = ["192.0.2.0/24"]
#   }
# }

# carol, line 17: SOURCE had host.example.org, which is not an address. Write
# the addresses: from = ["192.0.2.0/24"].
door "ssh-3" {
  ports  = [22]
  window = "30s"

  fwknop "carol" {
    key      = file("/etc/knockwall.secrets/carol.key")
    hmac_key = file("/etc/knockwall.secrets/carol.hmac")
    user     = "carol"
    from     = ["198.51.100.7"]
  }
}

# zo, line 23: REQUIRE_USERNAME is not UTF-8 in normal form C, which a rule
# file cannot hold. Write the user's name in ASCII into "user", as the client
# sends it (SPOOF_USER). Without that this person's datagrams would open to
# anybody, so complete the line, remove the # from the door's lines, and let
# your firewall accept its ports, too.
# door "port-8443" {
#   ports  = [8443]
#   window = "30s"
#
#   fwknop "zo" {
#     key      = file("/etc/knockwall.secrets/zo.key")
#     hmac_key = file("/etc/knockwall.secrets/zo.hmac")
#     user     = "somebody"
#   }
# }
