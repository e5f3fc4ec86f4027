#!/bin/sh
# Makes the files for the group "site" in the current folder: sh keys.sh ADDRESS NAME...
# The address is that of the NATS server, the names are those of the hosts. It needs openssl,
# and NATS' nk: go install github.com/nats-io/nkeys/nk@latest
set -eu
umask 077
address=$1
shift
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=nats \
  -addext "subjectAltName=IP:$address" -keyout nats.key -out nats.pem
{
  echo 'authorization { users: ['
  for name in "$@"; do
    nk -gen user >"$name.nk"
    public=$(nk -inkey "$name.nk" -pubout)
    echo "  { nkey: $public, permissions: { publish: \"knockwall.site.$name.>\", subscribe: \"knockwall.site.>\" } }"
  done
  echo '] }'
} >members.conf
