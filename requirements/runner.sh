#!/usr/bin/env bash
# Runs a kit command where RUNNER says: docker, podman, or a local environment. `auto` takes the
# first engine that answers and has the image; it says which and why in one line.
set -euo pipefail

has_image() { "$1" image inspect "$IMAGE:$TARGET" >/dev/null 2>&1; }
answers() { command -v "$1" >/dev/null 2>&1 && "$1" info >/dev/null 2>&1; }

choose() {
  local engine
  for engine in docker podman; do
    if answers "$engine" && has_image "$engine"; then
      runner=$engine why="$engine answers and has the image $IMAGE:$TARGET"
      return
    fi
  done
  runner=local why="no docker or podman with the image $IMAGE:$TARGET"
}

case "${RUNNER:-auto}" in
  auto) choose ;;
  docker | podman)
    runner=$RUNNER why="RUNNER=$RUNNER"
    answers "$runner" || { echo "error: $runner does not answer; start it, or type RUNNER=local" >&2; exit 4; }
    has_image "$runner" || { echo "error: $runner has no image $IMAGE:$TARGET; type RUNNER=local" >&2; exit 4; }
    ;;
  local) runner=local why="RUNNER=local" ;;
  *) echo "error: RUNNER must be auto, docker, podman or local, not '$RUNNER'" >&2; exit 2 ;;
esac
echo "runner: $runner ($why)"

if [ "$runner" = local ]; then
  "$MAKE" --no-print-directory -s setup
  shift # the word kit: its path is the environment's
  exec "$VENV/bin/kit" "$@"
fi

gpu=()
[ "$TARGET" = gpu ] && gpu=(--gpus all --ipc=host)
[ "$TARGET" = gpu ] && [ "$runner" = podman ] && gpu=(--device nvidia.com/gpu=all --ipc=host)
mkdir -p runs .kit
# Results belong to the caller; the hub token travels as an environment variable's name, not its value.
exec "$runner" run --rm "${gpu[@]}" --user "$(id -u):$(id -g)" \
  -e HF_TOKEN -e NO_COLOR -e KIT_HOME=/experiment/.kit -w /experiment \
  -v "$PWD/runs:/experiment/runs" -v "$PWD/.kit:/experiment/.kit" "$IMAGE:$TARGET" "${@:2}"
