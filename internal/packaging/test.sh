#!/usr/bin/env bash
# Builds the packages of the last commit twice, in different folders, umasks, time zones
# and locales. Both builds must have the same bytes, contain all files, and contain no path
# of the build machine. Needs dpkg and zstd. Takes forty seconds.
set -euo pipefail
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
commit=$(git -C "$repository" rev-parse HEAD) # both builds are of this one

built() { # FOLDER UMASK TZ LOCALE
  git clone -q "$repository" "$work/$1"
  git -C "$work/$1" checkout -q "$commit"
  (umask "$2" && cd "$work/$1" && TZ=$3 LC_ALL=$4 make -s deb rpm archlinux apk) >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
}
built one 022 UTC C
sleep 1 # so that no timestamp is the same by chance
built another/place 077 Pacific/Auckland C.UTF-8
for package in "$work"/one/build/*.{deb,rpm,pkg.tar.zst,apk}; do
  cmp "$package" "$work/another/place/build/${package##*/}"
  echo "both builds are the same: $(sha256sum "$package" | cut -c -16) $(stat -c %s "$package") bytes, ${package##*/}"
done

cd "$work/one"
version=$(build/"$(go env GOHOSTARCH)"/knockwall version | cut -d ' ' -f 2)
! grep -rqF "$work" build/"$(go env GOHOSTARCH)"/knockwall build/man build/completions || { echo "the package contains a path of this machine"; exit 1; }
diff <(grep -v '^#' systemd/sysusers.conf) <(grep '^u ' internal/packaging/rpm/pre)
for page in build/man/*; do
  zcat "$page" | grep '^\.SH NAME' >/dev/null || { echo "$page is no manual page"; exit 1; }
done
build/"$(go env GOHOSTARCH)"/knockwall check --config internal/packaging/example.hcl

# Mode, owner and path of the files that must be in the package. All others must belong to
# root, with mode 644 (files) or 755 (folders).
deb=$(echo build/knockwall_*.deb)
dpkg-deb -c "$deb" | awk '{ print $1, $2, substr($6, 2) }' | sort >"$work/list"
cat >"$work/expected" <<'LIST'
-rw-r----- root/root /etc/knockwall.d/example.hcl
-rw-r--r-- root/root /usr/lib/systemd/catalog/knockwall.catalog
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-metrics.service
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-metrics.timer
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-run@.path
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-run@.service
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-share.service
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-start@.path
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-start@.service
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-stop@.path
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall-stop@.service
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall.service
-rw-r--r-- root/root /usr/lib/systemd/system/knockwall.socket
-rw-r--r-- root/root /usr/lib/sysusers.d/knockwall.conf
-rw-r--r-- root/root /usr/share/bash-completion/completions/knockwall
-rw-r--r-- root/root /usr/share/doc/knockwall/README.md
-rw-r--r-- root/root /usr/share/doc/knockwall/SECURITY.md
-rw-r--r-- root/root /usr/share/doc/knockwall/changelog.gz
-rw-r--r-- root/root /usr/share/doc/knockwall/copyright
-rw-r--r-- root/root /usr/share/doc/knockwall/docs/API.md
-rw-r--r-- root/root /usr/share/doc/knockwall/docs/limits.md
-rw-r--r-- root/root /usr/share/doc/knockwall/examples/bastion/keys.sh
-rw-r--r-- root/root /usr/share/doc/knockwall/examples/gateways/role.sh
-rw-r--r-- root/root /usr/share/doc/knockwall/examples/many-hosts/doors.sh
-rw-r--r-- root/root /usr/share/doc/knockwall/examples/pair/knockwall.hcl
-rw-r--r-- root/root /usr/share/doc/knockwall/examples/ssh.hcl
-rw-r--r-- root/root /usr/share/doc/knockwall/licenses/github.com/nats-io/nats.go/LICENSE
-rw-r--r-- root/root /usr/share/doc/knockwall/licenses/github.com/spf13/cobra/LICENSE.txt
-rw-r--r-- root/root /usr/share/doc/knockwall/licenses/go/LICENSE
-rw-r--r-- root/root /usr/share/fish/vendor_completions.d/knockwall.fish
-rw-r--r-- root/root /usr/share/knockwall/alerts.yml
-rw-r--r-- root/root /usr/share/knockwall/dashboard.json
-rw-r--r-- root/root /usr/share/man/man1/knockwall-knock.1.gz
-rw-r--r-- root/root /usr/share/man/man5/knockwall.hcl.5.gz
-rw-r--r-- root/root /usr/share/man/man8/knockwall-run.8.gz
-rw-r--r-- root/root /usr/share/man/man8/knockwall.8.gz
-rw-r--r-- root/root /usr/share/zsh/vendor-completions/_knockwall
-rwxr-xr-x root/root /usr/bin/knockwall
-rwxr-xr-x root/root /usr/libexec/knockwall/knockwall-share
-rwxr-xr-x root/root /usr/libexec/knockwall/try-start
-rwxr-xr-x root/root /usr/libexec/knockwall/write-metrics
drwxr-x--- root/root /etc/knockwall.d/
LIST
sort -o "$work/expected" "$work/expected"
missing=$(comm -13 "$work/list" "$work/expected")
[ -z "$missing" ] || { echo "not in the package: $missing"; exit 1; }
odd=$(comm -23 "$work/list" "$work/expected" | grep -vE '^(-rw-r--r--|drwxr-xr-x) root/root /' || true)
[ -z "$odd" ] || { echo "wrong mode or owner: $odd"; exit 1; }
echo "right modes and owners: $(wc -l <"$work/list") files and folders"

# Links in the texts lead to files of the package, or to the web.
dpkg-deb -x "$deb" "$work/unpacked"
for page in "$work"/unpacked/usr/share/doc/knockwall/{,docs/}*.md; do
  { grep -oP '\]\(\K(?![^)#]*://)[^)#]+' "$page" || true; } | while read -r link; do # a page may have none
    [ -e "$(dirname "$page")/$link" ] || { echo "${page##*/} links to $link, which the package does not have"; exit 1; }
  done
done

# The client: its commands, and nothing of a host.
client=$(echo build/knockwall-client_*.deb)
dpkg-deb -c "$client" | awk '{ print $1, $2, substr($6, 2) }' | sort >"$work/list"
for file in /usr/bin/knockwall /usr/share/man/man1/knockwall-{connect,join,knock,ports}.1.gz \
  /usr/share/bash-completion/completions/knockwall /usr/share/doc/knockwall-client/{copyright,changelog.gz,licenses/go/LICENSE}; do
  grep -q " $file\$" "$work/list" || { echo "$client lacks $file"; exit 1; }
done
! grep -E ' /(etc|var|usr/lib|usr/libexec)/' "$work/list" || { echo "the client has files of a host"; exit 1; }
odd=$(grep -vE '^(-rw-r--r--|drwxr-xr-x) root/root |^-rwxr-xr-x root/root /usr/bin/knockwall$' "$work/list" || true)
[ -z "$odd" ] || { echo "wrong mode or owner: $odd"; exit 1; }
program=build/$(go env GOHOSTARCH)/client/knockwall
for command in knock connect join ports version completion; do
  "$program" help $command >/dev/null
done
! "$program" help run >/dev/null 2>&1 || { echo "the client can run a daemon"; exit 1; }
for package in "$deb" "$client"; do
  [[ $(dpkg-deb -f "$package" Maintainer) != *example* ]] || { echo "$package has an example as maintainer"; exit 1; }
done
echo "the client has $(wc -l <"$work/list") files and folders"

# Arch's package, and what its scripts do, with functions in the place of all programs.
arch=$(echo build/knockwall-[0-9]*.pkg.tar.zst)
mkdir "$work/arch"
tar -C "$work/arch" --use-compress-program=unzstd -xf "$arch" .INSTALL .PKGINFO
grep -qE '^pkgver = [0-9a-z.]+-1$' "$work/arch/.PKGINFO" || { echo "$arch has another $(grep pkgver "$work/arch/.PKGINFO")"; exit 1; }
{ echo 'preun() {'; cat internal/packaging/rpm/preun; echo '}'; } >"$work/rpm"
isChroot=false owner=''
does() { # FILE FUNCTION ARGUMENT: prints what runs
  # shellcheck disable=SC1090,SC2317,SC2329 # the functions are called from the file
  (
    stat() { echo "$owner"; }
    for program in systemctl rm chgrp knockwall; do
      eval "$program() { echo $program \"\$@\"; case \$* in *is-active*) return 1 ;; esac; }"
    done
    systemd-detect-virt() { "$isChroot"; }
    . "$1"
    "$2" "$3"
  ) 2>&1
}
expects() { # yes or no, COMMAND, then as for does
  local said found=yes
  said=$(does "${@:3}")
  grep -qxF -- "$2" <<<"$said" || found=no
  [ "$found" = "$1" ] || { echo "does ${*:4} run \`$2\`? $found, with chroot=$isChroot and owner=$owner"; exit 1; }
}
chgrp='chgrp knockwall /etc/knockwall.d/example.hcl'
owner='root 640' expects yes "$chgrp" "$work/arch/.INSTALL" post_upgrade 2
owner='root 600' expects no "$chgrp" "$work/arch/.INSTALL" post_upgrade 2
owner='admin 640' expects no "$chgrp" "$work/arch/.INSTALL" post_upgrade 2
for removal in "$work/arch/.INSTALL pre_remove 1" "$work/rpm preun 0"; do
  read -ra removal <<<"$removal"
  expects yes 'knockwall down' "${removal[@]}"
  isChroot=true expects no 'knockwall down' "${removal[@]}"
  expects yes 'rm -f /etc/systemd/system/*.wants/knockwall-*@*.path' "${removal[@]}"
  expects yes 'systemctl --no-reload disable knockwall-share.service knockwall-metrics.timer knockwall.socket knockwall.service' "${removal[@]}"
done
echo "right scripts of Arch and rpm"

# Packages of later commits and releases must sort later.
package=$(dpkg-deb -f "$deb" Version)
[ "v${package//[~.]/}" = "${version//[-.]/}" ] || { echo "the package is $package, and the program $version"; exit 1; }
dpkg --compare-versions "$package" gt '0.0.0~20260101000000.ffffffffffff' || { echo "$package is not later than a commit of 2026"; exit 1; }
dpkg --compare-versions "$package" lt '0.1.0~rc.1' || { echo "$package is not earlier than the first release"; exit 1; }
previous=0
becomes() { # FORMAT, a version of Go, and what it must become
  local converted
  converted=$(internal/packaging/version.sh "$1" "$2")
  [ "$converted" = "$3" ] || { echo "as a version of $1, $2 becomes $converted, not $3"; exit 1; }
}
# As Go has them, and as the packages do, each later than the one before. apk and pacman are not
# here to compare theirs.
while read -r go debian apk arch; do
  becomes deb "$go" "$debian"
  becomes deb "$go+dirty" "$debian+dirty"
  for dirty in '' +dirty; do
    becomes apk "$go$dirty" "$apk"
    becomes archlinux "$go$dirty" "$arch"
  done
  dpkg --compare-versions "$previous" lt "$debian" || { echo "$debian is not later than $previous"; exit 1; }
  previous=$debian
done <<'LIST'
0.0.0-20260101000000-ffffffffffff        0.0.0~20260101000000.ffffffffffff        0.0.0_pre20260101000000   0.0.0pre20260101000000
0.1.0-rc.1                               0.1.0~rc.1                               0.1.0_rc1                 0.1.0rc1
0.1.0-rc.1.0.20991231000000-000000000000 0.1.0~rc.1.0.20991231000000.000000000000 0.1.0_rc1_p20991231000000 0.1.0rc1.20991231000000
0.1.0-rc.2                               0.1.0~rc.2                               0.1.0_rc2                 0.1.0rc2
0.1.0                                    0.1.0                                    0.1.0                     0.1.0
0.1.1-0.20991231000000-000000000000      0.1.1~0.20991231000000.000000000000      0.1.1_pre20991231000000   0.1.1pre20991231000000
0.1.1                                    0.1.1                                    0.1.1                     0.1.1
LIST
echo "in order: versions up to $package and after"
