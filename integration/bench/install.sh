#!/bin/bash
# Installs on Debian the missing programs that the benchmark compares knockwall with. It
# disables the services of these packages: the benchmark starts its own daemons.
set -euo pipefail

missing=()
for package in knockd fwknop-server fwknop-client nftables gcc libc6-dev; do
	status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
	[[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
	echo "Nothing is missing."
	exit 0
fi
apt-get install --no-install-recommends --yes "${missing[@]}"
if [[ -d /run/systemd/system ]]; then
	for package in "${missing[@]}"; do
		case $package in
		knockd | fwknop-server) systemctl disable --now "$package" ;;
		esac
	done
fi
