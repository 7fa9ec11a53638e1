#!/usr/bin/env bash
# Builds the image of TARGET (cpu or gpu) with ENGINE: docker, podman, buildah, or auto.
#
#   BASE         another base image with Python 3.11 (default: the pinned one of images.json)
#   PIP_CONF     your pip settings, for a mirror; seen by the build, not kept in the image
#   CA_BUNDLE    your certificates, likewise
#   BUILD_ARGS   words added to the build command
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=requirements/engine.sh
. "$here/engine.sh"
cd "$here/.."

others="ENGINE=docker, podman or buildah"
case "${TARGET:=cpu}" in
  cpu | gpu) ;;
  *) fail "TARGET must be cpu or gpu, not '$TARGET'" "" "" 2 ;;
esac
case "${ENGINE:=auto}" in
  auto)
    for name in docker podman buildah; do
      answers "$name" && ENGINE=$name && break
    done
    [ "$ENGINE" != auto ] || fail "no docker, podman or buildah answers here" "an image needs one of them" \
      "install one, or run without an image: RUNNER=local"
    ;;
  docker | podman | buildah) must_answer "$ENGINE" "$others" ;;
  *) fail "ENGINE must be auto, docker, podman or buildah, not '$ENGINE'" "" "" 2 ;;
esac

if [ -n "${BASE:-}" ]; then
  echo "image: base $BASE, as given" >&2
else
  BASE=$("${PYTHON:-python3}" requirements/images.py base)
fi

commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || commit="$commit-dirty"
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' kit/__init__.py)

build=(build --target "$TARGET" --tag "${IMAGE:=safety-repro-kit}:$TARGET" --build-arg "BASE=$BASE"
  --build-arg "COMMIT=$commit" --build-arg "VERSION=$version" --build-arg "SOURCE_DATE_EPOCH=$epoch")
[ -z "${PIP_CONF:-}" ] || build+=(--secret "id=pip_conf,src=$PIP_CONF")
[ -z "${CA_BUNDLE:-}" ] || build+=(--secret "id=ca_bundle,src=$CA_BUNDLE")
[ "$ENGINE" = docker ] || build+=(--timestamp "$epoch")
export DOCKER_BUILDKIT=1 # docker before 23 has it, but only on request
# shellcheck disable=SC2206 # words
build+=(${BUILD_ARGS:-})

echo "image: $ENGINE builds $IMAGE:$TARGET at $commit" >&2
status=0
engine "$ENGINE" "${build[@]}" . || status=$?
[ "$status" = 0 ] || fail "$ENGINE could not build $IMAGE:$TARGET (status $status)" \
  "its own message stands above" "make image again when it is mended, or RUNNER=local"
echo "image: $IMAGE:$TARGET is ready" >&2
