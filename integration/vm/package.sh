#!/bin/bash
# package.sh PACKAGE: tests the README's promises about the package, on a disposable machine
# that has not used its firewall since boot: no firewall module of the kernel is loaded.
set -euo pipefail
package=$1
export DEBIAN_FRONTEND=noninteractive

failed() { echo "FAILED: $*"; journalctl -u knockwall --no-pager -n 30; nft list ruleset; exit 1; }
said() { printf '== %s\n' "$*"; }
eventually() { # WHAT COMMAND…
  local what=$1
  shift
  for _ in $(seq 300); do
    "$@" && return
    sleep 0.1
  done
  failed "not in time: $what"
}
client() { ip netns exec client "$@"; }
# A client that gets in receives its own text back.
# shellcheck disable=SC2016 # $line belongs to the inner shell
stranger() { client timeout 3 bash -c 'exec 3<>/dev/tcp/192.0.2.1/22 && echo hello >&3 && read -r line <&3 && [ "$line" = hello ]' 2>/dev/null; }
guest() { [ "$(echo hello | client timeout 60 knockwall connect "$1" 22 4113 27911/udp 1840 2>/dev/null)" = hello ]; }

said "a client, and a service on port 22"
ip netns add client
ip link add server type veth peer name eth0 netns client
ip addr add 192.0.2.1/24 dev server
ip addr add 2001:db8::1/64 dev server nodad
ip link set server up
client ip addr add 192.0.2.2/24 dev eth0
client ip addr add 2001:db8::2/64 dev eth0 nodad
client ip link set eth0 up
cat >/run/systemd/system/echo.socket <<'UNIT'
[Socket]
ListenStream=22
Accept=yes
UNIT
cat >/run/systemd/system/echo@.service <<'UNIT'
[Service]
ExecStart=/bin/cat
StandardInput=socket
UNIT
systemctl daemon-reload
systemctl start echo.socket
eventually "the service answers" stranger

said "install, and the first door"
! lsmod | grep -q '^nf_tables' || failed "nf_tables is loaded, so this cannot test whether the daemon loads it"
dpkg -i "$package"
cat >/etc/knockwall.d/ssh.hcl <<'RULES'
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
  window   = "1h"
}
RULES
chgrp knockwall /etc/knockwall.d/ssh.hcl
chmod 640 /etc/knockwall.d/ssh.hcl
knockwall check
knockwall reload --confirm 5m
nft list table inet knockwall | grep -E 'queue (flags bypass )?(num|to) ' || failed "the rules do not queue by themselves"
! stranger || failed "a stranger gets in"
guest 192.0.2.1 || failed "a guest does not get in"
guest 2001:db8::1 || failed "a guest does not get in by IPv6"
knockwall confirm
[ "$(ps -o user= -p "$(systemctl show -p MainPID --value knockwall)")" = knockwall ] || failed "the daemon does not run as user knockwall"

said "the journal has all events of the client"
story() { journalctl --sync; journalctl -u knockwall KNOCKWALL_SOURCE=192.0.2.2 -o cat; }
told() { story | grep -q "$1"; }
eventually "it was refused" told '192.0.2.2 is refused at ssh (22/tcp)'
eventually "it was let in" told '192.0.2.2 is admitted at ssh (22/tcp)'
story
journalctl -u knockwall -x KNOCKWALL_EVENT=refused | grep 'this command says why it does not' || failed "the catalog does not explain a refusal"
knockwall explain 192.0.2.2
systemctl status knockwall --no-pager | head -8

said "killed and started again, with the windows"
before=$(systemctl show -p MainPID --value knockwall)
kill -9 "$before"
again() { local pid; pid=$(systemctl show -p MainPID --value knockwall) && [ "$pid" != 0 ] && [ "$pid" != "$before" ] && knockwall status | grep -q '192.0.2.2'; }
eventually "the daemon is back" again
eventually "a client with an open window gets in" stranger

said "a one-time password with a secret that systemd passes to the service"
printf %s-%s qzqz "$RANDOM$RANDOM$RANDOM" >/root/vpn-open
chmod 600 /root/vpn-open
mkdir -p /etc/systemd/system/knockwall.service.d
printf '[Service]\nLoadCredential=vpn-open:/root/vpn-open\n' >/etc/systemd/system/knockwall.service.d/secret.conf
cat >/etc/knockwall.d/ssh.hcl <<'RULES'
door "vpn" {
  ports = [22]
  window = "1h"
  otp {
    port        = "2000/udp"
    open_secret = credential("vpn-open")
    skew        = "10m"
  }
}
RULES
knockwall check # root is not the service
systemctl daemon-reload
systemctl restart knockwall
! stranger || failed "a stranger gets in"
# Within the same minute the client sends the same password; later it sends another.
minute() { echo $(($(date +%s) / 60)); }
used=$(minute) # before the client makes the password
client knockwall knock --otp-file /root/vpn-open 192.0.2.1 2000
eventually "the password opens the door" stranger
kill -9 "$(systemctl show -p MainPID --value knockwall)"
up() { knockwall status >/dev/null 2>&1; }
eventually "the daemon is back" up
knockwall close vpn 192.0.2.2
! stranger || failed "a client without a window gets in"
client knockwall knock --otp-file /root/vpn-open 192.0.2.1 2000
replayed() { told 'repeats a used knock at vpn'; }
[ "$(minute)" != "$used" ] || eventually "it is good once" replayed
! journalctl -u knockwall -o export | grep -a qzqz || failed "the secret is in the journal"
! knockwall status --json | grep qzqz || failed "the secret is in the status"

said "remove: everybody gets in again"
dpkg -P knockwall
[ -z "$(nft list tables)" ] || failed "a table is left"
eventually "the port is open" stranger
systemctl stop echo.socket
rm -r /etc/systemd/system/knockwall.service.d /root/vpn-open
rm /run/systemd/system/echo.socket /run/systemd/system/echo@.service
ip netns del client
echo "passed: the package on $(uname -r)"
