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
# 5. Try it with a client. The clients need no change. Then stop fwknopd:
#        sudo systemctl disable --now fwknop-server

# person-4, line 16: The GPG keys of this stanza are left out: knockwall does
# not read them.
# person-4, line 16: SOURCE had host.example.org, which is not an address.
# Write the addresses: from = ["192.0.2.0/24"]. Without that this person's
# datagrams would open to anybody, so complete the line, remove the # from the
# door's lines, and let your firewall accept its ports, too.
# person-4, line 16: FW_ACCESS_TIMEOUT was 0 s. Here it is one second, the
# minimum.
# person-4, line 16: FORCE_NAT led connections to 10.1.2.3 port 22. knockwall
# makes no NAT rules. Write this one into your firewall, for everybody:
# iptables -t nat -A PREROUTING -p tcp --dport 2222 -j DNAT --to-destination
# 10.1.2.3:22. The door guards the port before it.
# person-4, line 16: FORCE_MASQUERADE has no counterpart: knockwall makes no
# NAT rules: keep such a rule in your firewall.
# person-4, line 16: ENABLE_CMD_EXEC has no counterpart: a client could send
# commands. Here a client can only open the door: write what should run as
# on_open.
# person-4, line 16: CMD_EXEC_USER has no counterpart: it is about commands of
# clients, which are not run here.
# person-4, line 16: WHATEVER is not known, and left out.
# person-4, line 16: The stanza had no name for this person. Write one.
# door "port-2222" {
#   ports  = [2222]
#   to     = ["203.0.113.7", "2001:db8::/48"]
#   window = "1s"
#
#   fwknop "person-4" {
#     key      = file("/etc/knockwall.secrets/person-4.key")
#     hmac_key = file("/etc/knockwall.secrets/person-4.hmac")
#     from     = ["192.0.2.0/24"]
#   }
# }

# /etc/fwknop/access.conf line 1: this stanza is left out: it has no
# HMAC_KEY_BASE64. Without an HMAC, a datagram can be changed on its way. Make
# one by `fwknop --key-gen`, and write it here and into the client's .fwknoprc
# with USE_HMAC Y.

# /etc/fwknop/access.conf line 5: this stanza is left out: it is for GPG keys,
# which knockwall does not read. Give this person keys by `fwknop --key-gen`,
# or a keyed knock with an ssh key.

# /etc/fwknop/access.conf line 10: this stanza is left out: its
# ENCRYPTION_MODE is legacy, in which the client sends no HMAC. Remove the
# mode from the client's .fwknoprc, and add HMAC_KEY_BASE64 in both places.
