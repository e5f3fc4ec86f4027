#!/usr/bin/env bash
# Tests the package, the demo and the kernel tests on a stock Debian with its kernel and
# systemd, in a virtual machine without KVM. That kernel has nftables' queue expression,
# which the kernel of this machine may lack.
#
#   test.sh [SUITE [TESTS]]   as root. SUITE is a Debian release, by default bookworm.
#                             TESTS is a pattern as for go test -run, by default all.
#
# Needs qemu-system-x86, mmdebstrap, e2fsprogs, make and Go. Takes about four minutes of
# two CPUs. The first run takes one minute more and keeps the image in $CACHE. Exits with
# the exit code of the tests.
set -euo pipefail

suite=${1:-bookworm}
tests=${2:-.}
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
packages=systemd-sysv,nftables,kmod,iproute2,netbase,procps,linux-image-cloud-amd64
cache=${CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/knockwall-vm}/$suite-$(echo "$packages" | md5sum | cut -c -8)
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The image: a minimal Debian with its kernel, systemd and nftables. The guest needs
# no initramfs, as NVMe and ext4 are built into the cloud kernel.
if [ ! -s "$cache/root.ext4" ] || [ ! -s "$cache/vmlinuz" ]; then
  echo "building a $suite image in $cache"
  mmdebstrap --quiet --variant=minbase --include=$packages \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$work/root"
  cp -L "$work"/root/boot/vmlinuz-* "$cache/vmlinuz"
  rm -rf "$work"/root/boot/* "$work"/root/usr/lib/modules/*/kernel/{sound,drivers/{gpu,infiniband,scsi,md,media,hid}}
  chroot "$work/root" depmod "$(basename "$work"/root/usr/lib/modules/*)"
  # Sizes change with each release, so leave half as much as free space.
  size=$(($(du -sm "$work/root" | cut -f1) * 3 / 2 + 64))
  mke2fs -q -t ext4 -O ^has_journal -d "$work/root" "$work/root.ext4" "${size}M" >/dev/null
  mv "$work/root.ext4" "$cache/root.ext4"
fi

# The files that the guest runs.
mkdir -p "$work/payload/integration" "$work/payload/internal/nft"
(
  cd "$top"
  make -s deb
  for package in $(go list ./integration/... | grep -vE '/integration/(lab|bench)(/|$)'); do
    folder=$work/payload/integration/${package##*/}
    mkdir "$folder"
    CGO_ENABLED=0 go test -c -ldflags='-s -w' -o "$folder/run.test" "$package"
  done
)
cp "$top"/build/amd64/knockwall "$top"/integration/vm/package.sh "$work/payload/"
cp "$top/build/knockwall_$(cat "$top/build/version")_amd64.deb" "$work/payload/knockwall.deb"
cp -r "$top/internal/nft/testdata" "$work/payload/internal/nft/"
cp -r "$top/examples" "$top/docs" "$top/README.md" "$work/payload/"
echo "$tests" >"$work/payload/tests"
cat >"$work/payload/run" <<'RUN'
uname -r
systemctl --version | head -1
./package.sh ./knockwall.deb || exit
./knockwall demo || exit
export KNOCKWALL_BINARY=$PWD/knockwall
code=0
# Skipped: tests that need clients that are not in the image, tests of times of a few
# milliseconds, which an emulated machine does not keep, floods, and tests that ran above.
for package in integration/*; do
  (cd "$package" && ./run.test -test.v -test.short -test.run "$(cat ../../tests)" -test.skip 'Systemd|Demo|Soak|Clients|Curl|SSH|Scan|Flood|Examples|Knockds|Atomicorps|NoReplacement|Guessing|ForgedSources|Multicast|HundredReloads|Nonsense|FiftyWindows|NotAnswered|CommandsThatFail|OnCloseIsRun|TransactionThatFails|OthersChange|FuzzInstall|LetIn.*/(.*several|among)|WhatKnocksMean/.*/overtaken') || code=1
done
exit "$code"
RUN
mke2fs -q -t ext4 -O ^has_journal -d "$work/payload" "$work/payload.ext4" "$(($(du -sm "$work/payload" | cut -f1) * 5 / 4 + 16))M" >/dev/null

# The tests run as a service of the guest. The guest powers off when the service ends.
cat >"$work/unit" <<'UNIT'
[Unit]
Requires=basic.target
After=basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=HOME=/root LANG=C.UTF-8
StandardOutput=file:/dev/ttyS1
StandardError=inherit
ExecStart=/bin/sh -c 'modprobe virtio_pci; modprobe virtio_blk; mkdir /run/p; until [ -b /dev/vda ]; do sleep 0.1; done; mount -o ro /dev/vda /run/p; cd /run/p; ip link set lo up; sh ./run </dev/null; echo "@@ $?"; sync'
UNIT
cp --sparse=always "$cache/root.ext4" "$work/root.ext4"
debugfs -w -R "write $work/unit /etc/systemd/system/vm-test.service" "$work/root.ext4" >/dev/null 2>&1

timeout --foreground "${TIMEOUT:-1800}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M q35 -smp 2 -m 1024 \
  -nodefaults -no-user-config -display none -no-reboot -kernel "$cache/vmlinuz" \
  -append "root=/dev/nvme0n1 rootfstype=ext4 rw systemd.unit=vm-test.service systemd.show_status=no console=ttyS0 quiet panic=-1 mitigations=off" \
  -drive "file=$work/root.ext4,format=raw,if=none,id=root" -device nvme,drive=root,serial=root \
  -drive "file=$work/payload.ext4,format=raw,if=none,id=payload,readonly=on" -device virtio-blk-pci,drive=payload \
  -serial "file:$work/console" -serial "file:$work/out" </dev/null || echo "qemu ended with $?"
tr -d '\r' <"$work/out" | grep -v '^@@' || true
code=$(tr -d '\r' <"$work/out" | sed -n 's/^@@ //p')
if [ -z "$code" ]; then
  echo "the guest did not finish; its console ends with:"
  tail -20 "$work/console"
  exit 1
fi
if [ "$code" = 0 ] && ! grep -q 'can queue by themselves: true' "$work/out"; then
  echo "the guest's nftables have no queue expression, so this tested nothing new"
  exit 1
fi
exit "$code"
