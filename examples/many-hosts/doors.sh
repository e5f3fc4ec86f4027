#!/bin/sh
# Writes a door for each host behind a gateway, with random knocks of its own:
#
#   sh doors.sh FOLDER <hosts
#
# Each line of `hosts` has the name of a host, and the addresses at which clients reach it
# through the gateway:
#
#   db1 198.51.100.11 2001:db8:2::11
#   db2 198.51.100.12
#
# FOLDER gets two kinds of files. doors-*.hcl are the rule files of the gateway: install them
# in /etc/knockwall.d with the owner and mode of the others, and reload. clients/NAME.hcl is
# what a client of the host NAME needs in its hosts file (knockwall(1)). Then it types:
#
#   knockwall knock NAME && ssh NAME
#
# A packet passes as many rules at the last of 1,000 doors as at an only one.
set -eu
umask 077
folder=$1
mkdir -p "$folder/clients"
doors=0
while read -r name addresses; do
  # shellcheck disable=SC2046 # three numbers
  set -- $(shuf --random-source=/dev/urandom -n 3 -i 10000-65535)
  # No port scan makes knocks that neither rise nor fall by going up or down.
  if { [ "$1" -lt "$2" ] && [ "$2" -lt "$3" ]; } || { [ "$1" -gt "$2" ] && [ "$2" -gt "$3" ]; }; then
    set -- "$2" "$1" "$3"
  fi
  to=
  for address in $addresses; do
    to="$to${to:+, }\"$address\""
  done
  # A rule file has at most 256 KiB.
  printf 'door "%s" {\n  ports    = [22]\n  to       = [%s]\n  sequence = [%s, "%s/udp", %s]\n  window   = "30s"\n}\n' \
    "$name" "$to" "$@" >>"$folder/doors-$((doors / 1000)).hcl"
  printf 'host "%s" {\n  address = "%s"\n  knock   = [%s, "%s/udp", %s]\n}\n' \
    "$name" "${addresses%% *}" "$@" >"$folder/clients/$name.hcl"
  doors=$((doors + 1))
done
