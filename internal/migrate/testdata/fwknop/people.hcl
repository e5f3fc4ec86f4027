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
#    everybody: 22/tcp, 443/tcp, 443/udp. Under fwknopd your firewall drops
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

# fwknopd listened on the interface eth0. The doors guard all interfaces but
# lo, and datagrams may come by any of them.

# MAX_SPA_PACKET_AGE was 300 s. Here a datagram is valid for 2 minutes.

door "ssh" {
  ports  = [22]
  window = "1m"

  fwknop "alice" {
    port     = "5000/udp"
    key      = file("/etc/knockwall.secrets/alice.key")
    hmac_key = file("/etc/knockwall.secrets/alice.hmac")
    user     = "alice"
    source   = "signed"
  }

  fwknop "bob" {
    port     = "5000/udp"
    key      = file("/etc/knockwall.secrets/bob.key")
    hmac_key = file("/etc/knockwall.secrets/bob.hmac")
    hmac     = "sha512"
    user     = "bob"
    expires  = "2027-12-31"
    from     = ["192.0.2.0/24", "198.51.100.7"]
  }
}

# person-3, line 19: MAX_FW_TIMEOUT has no counterpart: a client can ask for a
# shorter window than the door's (fwknop -f), and never for a longer one.
# person-3, line 19: The stanza had no name for this person. Write one.
door "port-443" {
  ports  = [443, "443/udp"]
  window = "30s"

  fwknop "person-3" {
    port     = "5000/udp"
    key      = file("/etc/knockwall.secrets/person-3.key")
    hmac_key = file("/etc/knockwall.secrets/person-3.hmac")
    expires  = "2030-01-01T00:00:00Z"
  }
}

door "ssh-2" {
  ports  = [22]
  window = "1m"

  fwknop "alice-2" {
    port     = "5000/udp"
    key      = file("/etc/knockwall.secrets/alice-2.key")
    hmac_key = file("/etc/knockwall.secrets/alice-2.hmac")
    user     = "alice"
    from     = ["203.0.113.0/24"]
  }
}
