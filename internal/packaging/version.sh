#!/bin/sh
# version.sh FORMAT VERSION: prints a version of Go's modules, without the v, as the packages of
# a format have it. A pre-release sorts before its release, and a later commit after the tag.
set -eu

# apk knows the words _pre and _rc, and _p for what comes after. For a commit, both versions
# have its date and not its hash. Neither says that the tree had changes.
apk() {
  echo "$1" | sed -E 's/\+.*//; s/-rc\.?([0-9]+)\.0\.([0-9]{14})-[0-9a-f]+$/_rc\1_p\2/
    s/-(.*\.)?([0-9]{14})-[0-9a-f]+$/_pre\2/; s/-rc\.?/_rc/'
}

case $1 in
# v1.2.4-0.DATE-COMMIT becomes 1.2.4~0.DATE.COMMIT.
deb | rpm) echo "$2" | sed 's/-/~/; s/-/./g' ;;
apk) apk "$2" ;;
# pacman knows pre and rc right after the digits, and one more number for what comes after.
archlinux) apk "$2" | sed 's/_p\([0-9]\)/.\1/; s/_//' ;;
*) echo "version.sh: no packages have the format $1" >&2; exit 1 ;;
esac
