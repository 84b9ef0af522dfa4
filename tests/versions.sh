#!/usr/bin/env bash
# Runs the tests of the engine with several versions of transformers: `make versions`, or
#     PYTHON=.venv/bin/python tests/versions.sh 5.10 5.17
# A version is installed into a folder that comes before $PYTHON's own packages.
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_NUM_THREADS=1
[ $# -gt 0 ] || set -- 5.10 5.17 5.19 5.23 5.24
python=${PYTHON:-python} workers=${WORKERS:-2} tests=${TESTS:-tests/engine tests/pruners tests/models}
folder=$PWD/.venv-versions status=0
mkdir -p "$folder"
grep -vE '^(transformers|huggingface_hub|tokenizers)==' constraints.txt > "$folder/constraints.txt"
for version in "$@"; do
    library=$folder/$version log=$folder/$version.log
    [ -d "$library/transformers" ] || "$python" -m pip install -q --target "$library" \
        -c "$folder/constraints.txt" "transformers==$version.*" 2> "$log" || { cat "$log"; exit 2; }
    PYTHONPATH=$PWD:$library "$python" -c \
        'import transformers; print("transformers", transformers.__version__, end=": ")'
    # shellcheck disable=SC2086 (several files)
    PYTHONPATH=$PWD:$library nice "$python" -m pytest -p no:cacheprovider -rfEs -n "$workers" $tests \
        > "$log" 2>&1 || status=1
    tail -n 1 "$log"
done
exit $status
