#!/usr/bin/env bash
# Runs the demo and the kernel tests on a stock Debian kernel, in a virtual
# machine without hardware help: the kernel there has nftables' own queue
# expression, which the machine that runs this may lack.
#
#   test.sh [SUITE]   as root; SUITE is a Debian release, by default bookworm
#
# Needs qemu-system-x86, mmdebstrap, e2fsprogs and Go. Takes about three minutes,
# the first time one more for the image, which stays in $CACHE. Exits with the
# tests' code.
set -euo pipefail

suite=${1:-bookworm}
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cache=${CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/knockwall-vm}/$suite
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The image: a minimal Debian with its kernel and nftables. The guest needs
# neither an initramfs, as NVMe and ext4 are built into the cloud kernel, nor an
# init but the script below.
if [ ! -s "$cache/root.ext4" ] || [ ! -s "$cache/vmlinuz" ]; then
  echo "building a $suite image in $cache"
  mmdebstrap --quiet --variant=minbase --include=nftables,kmod,iproute2,netbase,linux-image-cloud-amd64 \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$work/root"
  cp -L "$work"/root/boot/vmlinuz-* "$cache/vmlinuz"
  rm -rf "$work"/root/boot/* "$work"/root/usr/lib/modules/*/kernel/{sound,drivers/{gpu,infiniband,scsi,md,media,hid}}
  chroot "$work/root" sh -c 'depmod "$(ls /usr/lib/modules)"'
  # Modules and files change with each release; half of it is room.
  size=$(($(du -sm "$work/root" | cut -f1) * 3 / 2 + 64))
  mke2fs -q -t ext4 -O ^has_journal -d "$work/root" "$work/root.ext4" "${size}M" >/dev/null
  mv "$work/root.ext4" "$cache/root.ext4"
fi

# What the guest runs.
mkdir -p "$work/payload/integration" "$work/payload/ruleset"
(cd "$top" && CGO_ENABLED=0 go build -o "$work/payload/knockwall" ./cmd/knockwall)
(cd "$top" && CGO_ENABLED=0 go test -c -o "$work/payload/integration.test" ./integration)
cp -r "$top/ruleset/testdata" "$work/payload/ruleset/"
cp -r "$top/examples" "$work/payload/"
cat >"$work/payload/run" <<'RUN'
uname -r
modprobe nf_tables
export KNOCKWALL_BINARY=$PWD/knockwall HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
./knockwall demo || exit
cd integration
# Left out: what needs clients that are not in the image, what compares times of
# a few milliseconds, which an emulated machine does not keep, and floods.
../integration.test -test.v -test.short -test.skip 'Clients|Curl|SSH|Scans|Flood|LetIn.*/(.*several|among)|WhatKnocksMean/.*/overtaken'
RUN
tar -cf "$work/payload.tar" -C "$work/payload" .
truncate -s %1M "$work/payload.tar" # a disk has whole sectors

init='mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmpfs /tmp;
 mkdir -p /dev/pts; mount -t devpts devpts /dev/pts;
 mount -t tmpfs tmpfs /run; modprobe virtio_pci; modprobe virtio_blk; mkdir /tmp/p; cd /tmp/p;
 until [ -b /dev/vda ]; do sleep 0.1; done; tar -xf /dev/vda; ip link set lo up;
 sh ./run </dev/null >/dev/ttyS1 2>&1; echo "@@ $?" >/dev/ttyS1; sync; echo o >/proc/sysrq-trigger; sleep 60'
printf '#!/bin/sh\n%s\n' "$init" >"$work/init"
cp --sparse=always "$cache/root.ext4" "$work/root.ext4"
debugfs -w -R "write $work/init /vm-init" "$work/root.ext4" >/dev/null 2>&1
debugfs -w -R "set_inode_field /vm-init mode 0100755" "$work/root.ext4" >/dev/null 2>&1

timeout "${TIMEOUT:-720}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M q35 -smp 2 -m 1024 \
  -nodefaults -no-user-config -display none -no-reboot -kernel "$cache/vmlinuz" \
  -append "root=/dev/nvme0n1 rootfstype=ext4 rw init=/vm-init console=ttyS0 quiet panic=-1 mitigations=off" \
  -drive "file=$work/root.ext4,format=raw,if=none,id=root" -device nvme,drive=root,serial=root \
  -drive "file=$work/payload.tar,format=raw,if=none,id=payload,readonly=on" -device virtio-blk-pci,drive=payload \
  -serial "file:$work/console" -serial "file:$work/out" </dev/null || echo "qemu ended with $?"
tr -d '\r' <"$work/out" | grep -v '^@@' || true
code=$(tr -d '\r' <"$work/out" | sed -n 's/^@@ //p')
if [ -z "$code" ]; then
  echo "the guest did not finish; its console ends with:"
  tail -20 "$work/console"
  exit 1
fi
if [ "$code" = 0 ] && ! grep -q 'can queue by themselves: true' "$work/out"; then
  echo "the guest's nftables cannot queue by themselves, so that this tested nothing new"
  exit 1
fi
exit "$code"
