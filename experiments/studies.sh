#!/usr/bin/env bash
# All studies on the packaged models, two processes (PROCESSES) at a time: make studies
set -euo pipefail
cd "$(dirname "$0")/.."
run() {
    SECONDS=0
    bash "experiments/$1" "$2" &&
        echo "$(date +%T) $2 ${1%/run.sh}: $SECONDS s"
}
export -f run
scripts=(baseline.sh {positions,spread,horizon,equal_cost,two_stage}/run.sh)
for script in "${scripts[@]}"; do
    echo "$script tiny"
    echo "$script tiny_llava"
done | xargs -P "${PROCESSES:-2}" -L 1 bash -c 'run "$@"' run
python -m experiments.analysis
