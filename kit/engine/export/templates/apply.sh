#!/bin/sh
# Written by `kit export k8s`. Applies the Jobs of this folder wave by wave.
#
#   ./apply.sh                              # KUBECTL="kubectl -n mine" ./apply.sh
#
# It may be stopped and started again at any time: Jobs go on without it, and applying a Job that is
# there already changes nothing.
set -eu
cd "$(dirname "$0")"
kubectl=${KUBECTL:-kubectl}
seconds=${SECONDS_BETWEEN:-10}

apply() {
  $kubectl apply --server-side -f "$1"
}

wait_for() {
  while :; do
    states=$($kubectl get "job/$1" -o 'jsonpath={range .status.conditions[?(@.status=="True")]}{.type} {end}')
    case " $states" in
      *" Complete "*) echo "$1 is complete"; return 0 ;;
      *" Failed "*)
        echo "error: the Job $1 failed" >&2
        echo "  next: $kubectl logs -l job-name=$1 --prefix --tail=20" >&2
        echo "        mend the cause, then: $kubectl delete job $1, and ./apply.sh again" >&2
        exit 3 ;;
    esac
    sleep "$seconds"
  done
}

@WAVES@
$kubectl logs job/@LAST@ --tail=1
