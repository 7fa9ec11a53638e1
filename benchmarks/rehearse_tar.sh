#!/bin/bash
# TAR's rehearsals at the shape of Llama-3-8B on the GPUs of one host: 50 steps of an attack by
# `kit rehearse tar-red-team`, then five whole outer steps by `kit rehearse tar-bio`.
#
#     LIMIT=540 bash benchmarks/rehearse_tar.sh OUT [red-team] [bio]
#
# A tenth of every number is rehearsed (--fraction 0.1). Data and initial safeguard are the same in
# both, so the second takes them from the store; called again, so does everything that was finished.
# Inner steps an outer step: the published 64 where the time that is left allows it, else fewer, and
# the records say how many. On two H200 red-team took 250 s and bio behind it, with data and safeguard
# from the store, 415 s to the end of five outer steps and more than 500 with its attack: both do not
# fit into ten minutes. OUT gets an archive without weights; 70 GB of disk, 200 GB of memory.
OUT=$1; S=$(date +%s); LIMIT=${LIMIT:-540}; W=${WORK:-/tmp/rehearse-tar}; mkdir -p "$W" "$OUT"
shift; WANTED=" ${*:-red-team bio} "
export PYTHONPATH=$PWD:$PYTHONPATH HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore OMP_NUM_THREADS=8
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True KIT_HOME=$W/kit-home
MIB=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | sort -n | head -1)

log() { echo "$(($(date +%s) - S)) s: $*" | tee -a "$W/summary.txt"; }
left() { echo $((LIMIT - 30 - $(date +%s) + S)); }
settings() { for word in "$@"; do printf -- '--set\n%s\n' "$word"; done; }
rehearse() { # a name, seconds at most, an experiment, more arguments
    local name=$1 seconds=$2 begun
    begun=$(date +%s)
    shift 2
    timeout -s INT -k 25 "$seconds" python3 -c 'from kit.cli.main import main; main()' \
        --progress plain rehearse "$@" --fraction 0.1 --only seed=0 --runs-dir "$W/runs" \
        "${COMMON[@]}" >"$W/$name.log" 2>&1
    log "$name: exit $? after $(($(date +%s) - begun)) s"
    tail -5 "$W/$name.log" | cut -c1-300 | tee -a "$W/summary.txt"
}
load() { # seconds, MiB on each GPU, MiB of the disk and of the memory in use
    while sleep 5; do
        echo "$(($(date +%s) - S)) $(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits |
            tr '\n' ' ') $(df -m "$W" | tail -1 | awk '{print $3}') $(free -m | awk 'NR==2{print $3}')"
    done >"$W/load.txt" 2>/dev/null
}

log "$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tr '\n' ';')" \
    "$(df -h "$W" | tail -1) $(free -g | sed -n 2p)"
# What was measured before fits: 113 GiB on cards of 141 GB. Smaller ones compute layers again.
if [ "$MIB" -gt 120000 ]; then
    SAFEGUARD=(random-mapping.rows=16) ATTACK=(attack.rows=16)
    OUTER=(tar.rows=16 tar.snapshot=cpu tar.reference=offloaded tar.collected=resident)
else
    SAFEGUARD=(random-mapping.rows=4 random-mapping.checkpointing=true random-mapping.weights_stay=false)
    ATTACK=(attack.rows=8 attack.checkpointing=true)
    OUTER=(tar.rows=8 tar.checkpointing=true tar.reference=offloaded tar.collected=offloaded)
fi
mapfile -t COMMON < <(settings \
    'data.published=["pile-bio-all=6400","adversary-retain=6400","camel-bio-all=6400","chat=3200","wmdp=640"]' \
    random-mapping.steps=10 random-mapping.compiled=false "${SAFEGUARD[@]}" \
    attack.compiled=true "${ATTACK[@]}" 'attack.questions=["wmdp"]' 'attack.seldom=[]')
load &
WATCH=$!
[[ $WANTED == *" red-team "* ]] &&
    rehearse red-team 270 tar-red-team --only method=random-mapping --only adversary=forget-adamw-2e-5
L=$(left) K=16
if [ "$MIB" -gt 120000 ]; then
    for pair in 32:235 48:275 64:300; do [ "$L" -ge "${pair#*:}" ] && K=${pair%:*}; done
else
    [ "$L" -ge 260 ] && K=32
fi
log "tar-bio: $K inner steps an outer step, $L s left"
mapfile -t MORE < <(settings tar.outer_steps=50 tar.inner_steps=$K tar.forget_batch=32 \
    tar.inner_retain_batch=32 "${OUTER[@]}" attack.steps=20)
[[ $WANTED == *" bio "* ]] && rehearse bio "$L" tar-bio --only method=tar "${MORE[@]}"
kill $WATCH 2>/dev/null
log end
(cd "$W" && tar czf "$OUT/rehearse-tar.tar.gz" --exclude='*.safetensors' summary.txt load.txt ./*.log runs)
cp "$W/summary.txt" "$OUT/"
