# shellcheck shell=bash
# What runner.sh and image.sh share: finding a container engine, and messages in the kit's form.
# All three keep to bash 3.2, which is what macOS has. There ${x,,} is unknown, "${x[@]}" of an empty
# array counts as unset (write ${x[@]+"${x[@]}"}), and `command x || ...` ends a script under -e.

# fail WHAT WHY NEXT [STATUS]: one message, then the kit's exit status for an unfit machine.
fail() {
  printf 'error: %s\n' "$1" >&2
  [ -z "$2" ] || printf '  why:  %s\n' "$2" >&2
  [ -z "$3" ] || printf '  next: %s\n' "$3" >&2
  exit "${4:-4}"
}

installed() { command -v "$1" >/dev/null 2>&1; }

# The engine, with what the user adds to every call: BUILDAH_OPTIONS="--storage-driver vfs"
engine() {
  local name=$1 options
  shift
  options="$(printf '%s' "$name" | tr '[:lower:]' '[:upper:]')_OPTIONS"
  # shellcheck disable=SC2086 # options are words
  "$name" ${!options:-} "$@"
}

# The first line of what an engine printed that says error, else the last: docker ends with its help.
reason() {
  local line last=
  while IFS= read -r line; do
    [ -z "$line" ] || last=$line
    [[ $line != *[Ee][Rr][Rr][Oo][Rr]* ]] || break
  done <<<"$1"
  printf '%s' "$last"
}

answers() { installed "$1" && engine "$1" info >/dev/null 2>&1; }

must_answer() {
  installed "$1" || fail "$1 is not installed here" "" "install it, or choose another: $2"
  answers "$1" || fail "$1 does not answer" "$(reason "$(engine "$1" info 2>&1)")" \
    "start its service, or choose another: $2"
}
