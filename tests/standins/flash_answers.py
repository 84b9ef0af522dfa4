"""Answers of every method with SDPA and with the flash path, printed as JSON.

A process of its own: the library looks for flash-attn and for a GPU while it is imported.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

without = torch.cuda.is_available
torch.cuda.is_available = lambda: True  # flash-attn is refused without a GPU
from transformers.utils import is_flash_attn_2_available, is_torch_cuda_available  # noqa: E402

if not (is_torch_cuda_available() and is_flash_attn_2_available()):  # both remember their answer
    raise SystemExit("The stand-in was not found.")
torch.cuda.is_available = without

import flash_attn  # noqa: E402
from test_invariants import build  # noqa: E402

from ivcp import pruned  # noqa: E402
from ivcp.testing import EOS, IMAGE, START, batch_of, model_of, single  # noqa: E402

GENERATE = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [EOS, IMAGE, START]}
"""Decoding goes on for a while, and never ends early."""


def answer(family: str, attention: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Tokens, kept indices, and which functions of flash-attn were called."""
    model = model_of(family, attention)
    flash_attn.calls.clear()
    with torch.no_grad(), pruned(model, build(name, 0.4, family)) as session:
        tokens = model.generate(**inputs, **GENERATE)
    kept = [row.tolist() for row in session.kept]
    return {"tokens": tokens.tolist(), "kept": kept, "calls": sorted(flash_attn.calls)}


def main() -> None:
    """Print the answers to a padded batch and to one prompt, for each family and method."""
    answers: dict[str, Any] = {}
    for case in sys.argv[1:]:
        family, name = case.split()
        batch = batch_of(family)
        for kind, inputs in (("batch", batch.inputs), ("single", single(batch, 1))):
            answers[f"{case} {kind}"] = [
                answer(family, attention, name, inputs)
                for attention in ("sdpa", "flash_attention_2")
            ]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
