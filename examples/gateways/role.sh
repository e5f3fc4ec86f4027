#!/bin/sh
# keepalived calls it when this gateway gets a role: role.sh primary|backup
set -eu

tell() { conntrackd -C /etc/conntrackd/conntrackd.conf "$1"; }

case $1 in
primary)
  tell -c # gives the other gateway's connections to the kernel
  tell -f # forgets both caches
  tell -R # reads the kernel's connections
  tell -B # sends them to the other gateway
  ;;
backup)
  tell -t # ends the kernel's connections soon, as they go on at the other gateway
  tell -n # asks the other gateway for its connections
  ;;
*)
  echo "usage: role.sh primary|backup" >&2
  exit 2
  ;;
esac
