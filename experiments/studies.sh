#!/usr/bin/env bash
# All studies on the packaged models, one process a model: make studies
set -euo pipefail
cd "$(dirname "$0")/.."
all() {
    for script in baseline.sh {positions,spread,horizon,equal_cost,two_stage}/run.sh; do
        bash "experiments/$script" "$1"
        echo "$(date +%T) $1 ${script%/run.sh}"
    done
}
all tiny & first=$!
all tiny_llava & second=$!
wait $first || failed=1
wait $second || failed=1
[ -z "${failed:-}" ]
python -m experiments.analysis
