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

# person-1, line 1: The stanza had no name for this person. Write one.
# fwknopd ran a command and changed no firewall by itself, so this door guards
# no port. If the command opens ports to the source, write ports = [...]
# instead of it. The daemon runs it in the sandbox of knockwall.service: not
# as root, and without a network. If it needs more, let another systemd unit
# run it: /usr/share/doc/knockwall/examples/commands.hcl shows how.
door "ssh" {
  window = "2m"

  fwknop "person-1" {
    key      = file("/etc/knockwall.secrets/person-1.key")
    hmac_key = file("/etc/knockwall.secrets/person-1.hmac")
  }

  on_open {
    command = ["/usr/sbin/ipset", "add", "fwknop_allow", "${source}", "timeout", "120"]
  }

  on_close {
    command = ["/usr/sbin/ipset", "del", "fwknop_allow", "${source}"]
  }
}

# person-2, line 9: The stanza had no name for this person. Write one.
# fwknopd ran a command and changed no firewall by itself, so this door guards
# no port. If the command opens ports to the source, write ports = [...]
# instead of it. The daemon runs it in the sandbox of knockwall.service: not
# as root, and without a network. If it needs more, let another systemd unit
# run it: /usr/share/doc/knockwall/examples/commands.hcl shows how.
door "fwknop" {
  window = "30s"

  fwknop "person-2" {
    key      = file("/etc/knockwall.secrets/person-2.key")
    hmac_key = file("/etc/knockwall.secrets/person-2.hmac")
  }

  on_open {
    command = ["/bin/sh", "-c", "echo \"$KNOCKWALL_SOURCE\" >> /tmp/$${x} && nft add element ip t s { $KNOCKWALL_SOURCE }"]
  }
}

# person-3, line 15: The stanza had no name for this person. Write one.
# fwknopd ran a command and changed no firewall by itself, so this door guards
# no port. If the command opens ports to the source, write ports = [...]
# instead of it. The daemon runs it in the sandbox of knockwall.service: not
# as root, and without a network. If it needs more, let another systemd unit
# run it: /usr/share/doc/knockwall/examples/commands.hcl shows how.
# on_open: the command has $PORT, which a door does not have. Write a value in
# its place, and remove the # from these lines.
# on_close: the command has $PORT, which a door does not have. Write a value
# in its place, and remove the # from these lines.
# door "ssh-2" {
#   window = "30s"
#
#   fwknop "person-3" {
#     key      = file("/etc/knockwall.secrets/person-3.key")
#     hmac_key = file("/etc/knockwall.secrets/person-3.hmac")
#   }
#
#   on_open {
#     command = ["/bin/sh", "-c", "/bin/open $IP $PORT"]
#   }
#
#   on_close {
#     command = ["/bin/sh", "-c", "/bin/close $IP $PORT"]
#   }
# }
