#!/usr/bin/env bash
# Runs a kit command where RUNNER says: docker, podman, or a local environment. `auto` takes the
# first engine that answers and has the image; it says which and why in one line.
#
# In a container the inputs are fetched first, with the network and the hub token; then everything
# else runs without both. The token is a file that is mounted read-only for that first part: it is in
# no argument, no variable of the container (which `inspect` would show), no log and no image.
set -euo pipefail
# shellcheck source=requirements/engine.sh
. "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

others="RUNNER=docker, podman or local"
image=${IMAGE:?}:${TARGET:?}
has_image() { engine "$1" image inspect "$image" >/dev/null 2>&1; }

choose() {
  local name
  for name in docker podman; do
    if answers "$name" && has_image "$name"; then
      runner=$name why="$name answers and has the image $image"
      return
    fi
  done
  runner=local why="no docker or podman with the image $image"
}

case "${RUNNER:-auto}" in
  auto) choose ;;
  docker | podman)
    runner=$RUNNER why="RUNNER=$RUNNER"
    must_answer "$runner" "$others"
    has_image "$runner" || fail "$runner has no image $image" "" \
      "make image TARGET=$TARGET ENGINE=$runner, or type RUNNER=local"
    ;;
  local) runner=local why="RUNNER=local" ;;
  *) fail "RUNNER must be auto, docker, podman or local, not '$RUNNER'" "" "" 2 ;;
esac
echo "runner: $runner ($why)"
# Fedora and others ship podman under docker's name; its users and GPUs are podman's.
kind=$runner
[ "$runner" != docker ] || case $(engine docker --version 2>/dev/null) in
  *podman*) kind=podman ;;
esac

if [ "$runner" = local ]; then
  setup=setup
  if [ "$TARGET" = gpu ]; then
    why=$({ nvidia-smi -L || echo "exit status $?"; } 2>&1 | tail -n 1)
    [[ $why == "GPU "* ]] || fail "no NVIDIA GPU answers here; this profile needs one" "nvidia-smi: $why" \
      "install the NVIDIA driver, or type PROFILE=mini"
    setup=setup-gpu VENV=$GPU_VENV
  fi
  "$MAKE" --no-print-directory -s "$setup"
  shift # the word kit: its path is the environment's
  exec "$VENV/bin/kit" "$@"
fi

gpu=()
if [ "$TARGET" = gpu ]; then
  gpu=(--gpus all --ipc=host)
  mend="install the NVIDIA container toolkit; sudo nvidia-ctk runtime configure --runtime=docker; restart docker"
  if [ "$kind" = podman ]; then
    gpu=(--device nvidia.com/gpu=all --ipc=host)
    mend="install the NVIDIA container toolkit; sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
  fi
  why=$(engine "$runner" run --rm --network none ${gpu[@]+"${gpu[@]}"} \
    --entrypoint nvidia-smi "$image" -L 2>&1) ||
    fail "$runner cannot give a container the GPU" "$(reason "$why")" "$mend; or type RUNNER=local"
fi

revision=$(engine "$runner" image inspect --format \
  '{{index .Config.Labels "org.opencontainers.image.revision"}}' "$image" 2>/dev/null || true)
head=$(git rev-parse HEAD 2>/dev/null || true)
[ -z "$head" ] || [ "$revision" = "$head" ] ||
  echo "runner: the image is of commit ${revision:-unknown}, this checkout is at $head; make image renews it"

# Results belong to the caller. In a rootless engine the caller is the container's root; podman can
# map it back.
own=(--user "$(id -u):$(id -g)")
if [ "$kind" = podman ]; then
  own+=(--security-opt label=disable)
  [ "$(id -u)" = 0 ] || own+=(--userns=keep-id)
else
  own+=(--init)
  case $(engine docker info --format '{{.SecurityOptions}}') in
    *name=rootless*) own=(--user 0:0 --init) ;;
  esac
fi
mkdir -p runs .kit/container-cache
common=(run --rm "${own[@]}" -w /experiment -e NO_COLOR -e KIT_HOME=/experiment/.kit
  -v "$PWD/runs:/experiment/runs" -v "$PWD/.kit:/experiment/.kit" -v "$PWD/.kit/container-cache:/cache")
[ -t 0 ] && [ -t 1 ] && common+=(-it)

# Status 125 to 127 is the engine's own: no container was started.
contained() {
  local status=0
  engine "$runner" "${common[@]}" "$@" || status=$?
  case $status in
    125 | 126 | 127) fail "$runner could not start the container (status $status)" \
      "its own message stands above" "see to $runner, or type RUNNER=local" ;;
  esac
  return $status
}

# The token as a file: the user's own, or one made of HF_TOKEN that goes when this script goes.
token_file() {
  local stored=${HF_TOKEN_PATH:-${HF_HOME:-$HOME/.cache/huggingface}/token}
  if [ -n "${HF_TOKEN:-}" ]; then
    secret=$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/kit-token.XXXXXX")
    trap 'rm -rf "$secret"' EXIT
    (umask 077 && printf '%s' "$HF_TOKEN" >"$secret/token")
    stored=$secret/token
    unset HF_TOKEN # the engine's own process need not know it either
  fi
  [ ! -s "$stored" ] || token=(-v "$stored:/run/secrets/hf_token:ro" -e HF_TOKEN_PATH=/run/secrets/hf_token)
}

# What the miniature profiles and rehearsals read ships with the kit: they never see a network.
if [ "$2" = reproduce ] && [ "$PROFILE" != mini ]; then
  token=() hub=${HF_HUB_CACHE:-${HF_HOME:-$HOME/.cache/huggingface}/hub}
  token_file
  # What is there is not fetched again: the pin becomes a link to it, which the steps must see too.
  [ ! -d "$hub" ] || common+=(-v "$hub:/hub:ro" -e HF_HUB_CACHE=/hub)
  # podman hands proxies on by itself, docker only what its own settings name.
  contained ${token[@]+"${token[@]}"} -e HF_ENDPOINT -e HTTPS_PROXY -e https_proxy -e NO_PROXY \
    -e no_proxy "$image" fetch "$3" --profile "$PROFILE"
fi
# Without a network a host has no name: what talks to itself has to be told its own address.
[ "$TARGET" = cpu ] || gpu+=(-e VLLM_HOST_IP=127.0.0.1 -e GLOO_SOCKET_IFNAME=lo -e NCCL_SOCKET_IFNAME=lo)
contained --network none -e HF_HUB_OFFLINE=1 ${gpu[@]+"${gpu[@]}"} "$image" "${@:2}"
