#!/usr/bin/env bash
# Makes the base image NAME for machines that reach Debian's packages but no registry: Debian 12 with
# its Python 3.11 and the headers that Triton compiles against. Needs root, debootstrap and buildah;
# MIRROR is where the packages come from, if not from where debootstrap looks itself.
set -euo pipefail
# shellcheck source=requirements/engine.sh
. "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

name=${1:?"usage: debootstrap-base.sh NAME"}
for tool in debootstrap buildah; do
  installed "$tool" || fail "$tool is not installed here" "" "apt-get install debootstrap buildah"
done
[ "$(id -u)" = 0 ] || fail "debootstrap needs root" "" "give another base: BASE=..."

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3-venv,python3-dev bookworm "$tree" \
  ${MIRROR:+"$MIRROR"} >"$tree.log" 2>&1 ||
  fail "debootstrap failed" "$(tail -n 1 "$tree.log")" "read $tree.log"
rm -f "$tree.log" "$tree"/var/cache/apt/archives/*.deb
container=$(engine buildah from scratch)
engine buildah add -q "$container" "$tree" / >/dev/null
engine buildah commit -q --rm "$container" "$name"
