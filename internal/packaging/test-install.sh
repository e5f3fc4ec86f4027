#!/usr/bin/env bash
# test-install.sh OLD.deb NEW.deb: tests the package with dpkg, systemd and the kernel, from
# installation to purge. Run it as root on a disposable Debian machine, with nftables and
# without policy-rc.d: it installs and purges packages and changes the firewall.
set -euo pipefail
old=$1 new=$2
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
# These take most of the time otherwise: the index of manual pages, and syncs to the disk.
rm -f /var/lib/man-db/auto-update
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io

failed() { echo "FAILED: $*" >&2; journalctl -u knockwall --no-pager -n 20 >&2; exit 1; }
said() { printf '== %s\n' "$*"; }
active() { [ "$(systemctl is-active knockwall.socket knockwall.service | xargs)" = "$1" ] || failed "not $1"; }
daemon() { systemctl show -p MainPID --value knockwall.service; }
bare() { [ -z "$(nft list tables)" ] || failed "a table is left: $(nft list tables)"; }
window() { nft list set inet knockwall open4 2>/dev/null | grep '192\.0\.2\.7 \. 0x[0-9a-f]* timeout [0-9dhms]* expires 9h' >/dev/null; }

said "install: the daemon runs, guards nothing, and only it can read its secrets"
dpkg -i "$old"
active "active active"
knockwall check
[ "$(stat -c '%U:%G %a' /etc/knockwall.d /etc/knockwall.d/example.hcl | xargs)" = "root:knockwall 2750 root:knockwall 640" ] || failed "owners or modes"
(umask 027; : >/etc/knockwall.d/new.hcl)
knockwall check || failed "the daemon cannot read a rule file that root creates"
rm /etc/knockwall.d/new.hcl
[ "$(stat -c '%U:%G %a' /var/lib/knockwall)" = "knockwall:knockwall 750" ] || failed "the state's owner or mode"
systemctl is-enabled knockwall.socket knockwall.service
[ "$(find /usr/share/man/man8 -name 'knockwall*.8.gz' | wc -l)" -gt 10 ] || failed "no manual pages"
journalctl --list-catalog | grep ' knockwall: ' >/dev/null || failed "no catalog"
knockwall down
active "inactive inactive"
bare
systemctl start knockwall

said "upgrade: a new daemon, the same window; an administrator's changes stay"
cat >/etc/knockwall.d/ssh.hcl <<'RULES'
door "ssh" {
  ports    = [22]
  sequence = [4113, "27911/udp", 1840]
}
RULES
chgrp knockwall /etc/knockwall.d/ssh.hcl
chmod 640 /etc/knockwall.d/ssh.hcl
chmod 00755 /etc/knockwall.d # five digits: this clears the setgid bit
knockwall reload
knockwall open ssh 192.0.2.7 --window 10h
before=$(daemon)
dpkg -i "$new"
active "active active"
[ "$(daemon)" != "$before" ] || failed "the old daemon runs on"
window || failed "the window is gone"
[ "$(stat -c %a /etc/knockwall.d)" = 755 ] || failed "the folder's mode is not the administrator's"

said "upgrade with wrong rule files: the running daemon goes on"
before=$(daemon)
echo 'door "web" {' >/etc/knockwall.d/web.hcl
dpkg -i "$old"
[ "$(daemon)" = "$before" ] || failed "the daemon was stopped, and none can start"
window || failed "the window is gone"
rm /etc/knockwall.d/web.hcl

said "upgrade while a list or a credential is missing that only the service can read"
printf '# nothing yet\n7001,7002\n' >/etc/knockwall.list
chown knockwall: /etc/knockwall.list
chmod 600 /etc/knockwall.list
printf qzqz-secret >/root/otp
mkdir -p /etc/systemd/system/knockwall.service.d
printf '[Service]\nLoadCredential=otp:/root/otp\nReadWritePaths=/etc/knockwall.list\n' >/etc/systemd/system/knockwall.service.d/otp.conf
systemctl daemon-reload
cat >/etc/knockwall.d/more.hcl <<'RULES'
door "listed" {
  ports              = [23]
  one_time_sequences = "/etc/knockwall.list"
}
door "vpn" {
  ports = [24]
  otp {
    port        = "2000/udp"
    open_secret = credential("otp")
  }
}
RULES
systemctl restart knockwall
before=$(daemon)
mv /etc/knockwall.list /etc/away
dpkg -i "$old" >/tmp/dpkg 2>&1 || failed "dpkg: $(cat /tmp/dpkg)"
[ "$(daemon)" = "$before" ] || failed "the daemon was stopped, and none can start"
grep -F /etc/knockwall.list /tmp/dpkg >/dev/null || failed "dpkg does not say why: $(cat /tmp/dpkg)"
grep -F 'the old one goes on' /tmp/dpkg >/dev/null || failed "dpkg does not say that the old one goes on"
mv /etc/away /etc/knockwall.list
refused() { # WHY: the test before a restart must fail with this text
  ! /usr/libexec/knockwall/try-start >/tmp/try 2>&1 || failed "it would start: $1"
  grep -F "$1" /tmp/try >/dev/null || failed "it does not say why: $(cat /tmp/try)"
}
mv /root/otp /root/away
refused credential
mv /root/away /root/otp
mv /etc/systemd/system/knockwall.service.d/otp.conf /root/otp.conf
refused 'more.hcl line 9'
mv /root/otp.conf /etc/systemd/system/knockwall.service.d/otp.conf
/usr/libexec/knockwall/try-start || failed "it would not start, though nothing is missing"
[ "$(daemon)" = "$before" ] || failed "a trial has ended the daemon"
[ ! -e /run/systemd/system/knockwall-try.service ] || failed "the trial's unit is left"
! journalctl -o export | grep -a qzqz >/dev/null || failed "the secret is in the journal"
rm -r /etc/knockwall.d/more.hcl /etc/systemd/system/knockwall.service.d /etc/knockwall.list /root/otp
systemctl daemon-reload
systemctl restart knockwall
window || failed "the window is gone"

said "upgrade of a daemon that cannot start again: dpkg says so"
echo 'door "web" {' >/etc/knockwall.d/web.hcl
systemctl restart knockwall.service || true
dpkg -i "$old" 2>&1 | tee /dev/stderr | grep 'the daemon could not start' >/dev/null || failed "it does not say so"
window || failed "the window is gone"
rm /etc/knockwall.d/web.hcl
systemctl restart knockwall.service

said "upgrade of a stopped daemon: it stays stopped, and the wall stays"
systemctl stop knockwall.service
dpkg -i "$new"
active "active inactive"
window || failed "the window is gone"

said "upgrade after the wall was taken down: it stays down"
systemctl start knockwall.service
knockwall down
dpkg -i "$new"
active "inactive inactive"
bare
systemctl start knockwall.service
systemctl stop knockwall.service
nft list table inet knockwall >/dev/null 2>&1 || failed "no wall"

said "remove, with no daemon: the wall goes, and units that knocks start"
printf '#!/bin/sh\ntouch /root/ran\n' >/usr/local/sbin/script
chmod 755 /usr/local/sbin/script
systemctl --quiet enable --now knockwall-run@script.path
touch /run/knockwall/run-script
for _ in $(seq 100); do
  [ ! -e /root/ran ] || break
  sleep 0.1
done
[ -e /root/ran ] || failed "the script has not run"
dpkg -r knockwall
active "inactive inactive"
[ "$(systemctl is-active knockwall-run@script.path)" = inactive ] || failed "a file in /run/knockwall can still start a script"
bare
[ ! -e /run/knockwall/control.sock ] || failed "the socket is left"

said "install again: the wall is back"
dpkg -i "$new"
active "active active"
nft list table inet knockwall >/dev/null 2>&1 || failed "no wall"

said "metrics for the node exporter, only while the daemon runs"
metrics=/var/lib/prometheus/node-exporter/knockwall.prom
mkdir -p "${metrics%/*}"
systemctl enable --now knockwall-metrics.timer
for _ in $(seq 300); do
  [ ! -s $metrics ] || break
  sleep 0.1
done
grep -q '^knockwall_build_info{' $metrics || failed "no metrics: $(cat $metrics)"
! grep -vE '^(# [A-Z]+ )?knockwall_' $metrics || failed "metrics that the node exporter has, too"
systemctl stop knockwall.service
systemctl start knockwall-metrics.service # as the timer does
[ ! -e $metrics ] || failed "metrics of no daemon"
active "active inactive"
systemctl start knockwall.service
systemctl start knockwall-metrics.service
[ -s $metrics ] || failed "no metrics again"

said "purge, with a daemon: only the user is left"
dpkg -P knockwall
bare
active "inactive inactive"
left=$(find /etc /run /usr/bin /usr/lib /usr/share /var/lib -name '*knockwall*')
[ -z "$left" ] || failed "left: $left"

said "install over wrong rule files: dpkg succeeds, and the daemon takes corrected files"
mkdir /etc/knockwall.d
echo 'door "web" {' >/etc/knockwall.d/web.hcl
chmod 600 /etc/knockwall.d/web.hcl
dpkg -i "$new"
bare
printf 'door "web" {\n  ports    = [443]\n  sequence = [4113, "27911/udp", 1840]\n}\n' >/etc/knockwall.d/web.hcl
for _ in $(seq 50); do
  systemctl --quiet is-active knockwall.service && break
  sleep 0.1
done
active "active active"
dpkg -P knockwall
bare
echo "passed: install, upgrade, remove, purge"
