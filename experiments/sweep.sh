# Sourced by the run.sh of each study; the model is the script's first argument, overrides follow.
# The environment names what fits other models than the packaged ones.
set -euo pipefail
export OMP_NUM_THREADS=1
model=$1
more=("${@:2}")
boxes=${BOXES:-shapes} questions=${QUESTIONS:-shapes_pope}  # datasets
validation=${VALIDATION:-dataset.split=val}                 # an override: other boxes, to choose a layer on
middle=${MIDDLE:-4} late=${LATE:-6} layers="pruner.layer=${LAYERS:-range(1,8)}"
study=$(basename "$(dirname "$0")")

# sweep NAME OVERRIDE...: runs of this study, below RUNS/MODEL/STUDY/NAME (RUNS: outputs/studies); finished ones stay
sweep() {
    python run.py -m +experiment="${experiment:-study}" model="$model" "${@:2}" "${more[@]}" \
        hydra.sweep.dir="${RUNS:-outputs/studies}/$model/$study/$1" > /dev/null
}
