"""Keyword arguments of `generate` as sampling parameters of vLLM, checked before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ivcp.core.errors import UserError

ALWAYS = {
    "max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens",
    "repetition_penalty": "repetition_penalty",
}  # fmt: skip
SAMPLED = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
"""Arguments of `generate` by vLLM's names; those of `SAMPLED` mean nothing to greedy decoding."""
OF_LIBRARY = {"top_k": 50}
"""What `generate` takes where nobody says anything, and vLLM does not."""
WITHOUT_EFFECT = {"do_sample", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id",
                  "max_length", "transformers_version", "_from_model_config"}  # fmt: skip
"""What is read elsewhere, or says nothing about an answer; `max_new_tokens` wins over a length."""
NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "typical_p": 1, "length_penalty": 1,
           "encoder_repetition_penalty": 1, "num_beam_groups": 1}  # fmt: skip
"""Values that change nothing, beside null, false and 0."""
LOWEST_TEMPERATURE = 0.01
"""vLLM raises lower ones to this."""


def sampling(generation: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams` that mean what a call of `generate` would.

    Args:
        generation: Keyword arguments of `generate`, checked.
        stored: The checkpoint's own generation settings, which stand where the call names nothing.

    Raises:
        UserError: One of them has no counterpart in vLLM.

    >>> sampling({"max_new_tokens": 8, "do_sample": False}, {"eos_token_id": 2, "temperature": 0.1})
    {'max_tokens': 8, 'temperature': 0.0, 'stop_token_ids': [2], 'ignore_eos': True}
    """
    merged = {**OF_LIBRARY, **stored, **generation}
    sampled = bool(merged.get("do_sample"))
    names = {**ALWAYS, **SAMPLED} if sampled else ALWAYS
    taken = {names[name]: v for name, v in merged.items() if name in names and v is not None}
    for name, value in merged.items():
        known = name in ALWAYS or name in SAMPLED or name in WITHOUT_EFFECT
        if not known and value and value != NEUTRAL.get(name):
            mine = name in generation
            raise UserError(
                f"{'generation.' if mine else 'The checkpoint sets '}{name}={value!r}, which has "
                f"no counterpart in vLLM: {'leave it out' if mine else f'generation.{name}=null'}, "
                "or use backend=transformers."
            )
    if "max_tokens" not in taken:
        raise UserError("backend=vllm needs generation.max_new_tokens, a whole number.")
    if not sampled:
        taken["temperature"] = 0.0
    elif taken.get("temperature", 1.0) < LOWEST_TEMPERATURE:
        raise UserError(
            f"vLLM samples with a temperature of at least {LOWEST_TEMPERATURE}; got "
            f"{taken['temperature']}: use generation.do_sample=false."
        )
    ends = merged.get("eos_token_id")
    taken["stop_token_ids"] = [ends] if isinstance(ends, int) else list(ends or ())
    return {**taken, "ignore_eos": True}  # vLLM's own idea of the end, beside these
