"""Keyword arguments of `generate`, checked before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from ivcp.core.errors import UserError, did_you_mean
from ivcp.core.fields import check_fields
from ivcp.engine.checks import check_pruned_generation

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Arguments that mean nothing where answers are greedy."""

TOKENIZER = "needs a tokenizer inside generate, which is not passed"
HUB_CODE = "needs code from the hub, which is never run"
TOKENS = "must be false: an answer is made of tokens alone"
REFUSED = {
    "return_dict_in_generate": TOKENS,
    "output_scores": TOKENS,
    "output_logits": TOKENS,
    "output_attentions": TOKENS,
    "output_hidden_states": TOKENS,
    "stop_strings": f"{TOKENIZER}: use max_new_tokens or eos_token_id",
    "token_healing": TOKENIZER,
    "guidance_scale": "runs the model on a second prompt, which has no image: leave it out",
    "penalty_alpha": HUB_CODE,
    "dola_layers": HUB_CODE,
    "constraints": HUB_CODE,
    "force_words_ids": HUB_CODE,
}
"""Arguments that may only be false or null, and why."""
ONLY_ONE = {
    "num_return_sequences": "a sample has one answer",
    "num_beam_groups": HUB_CODE,
}
"""Arguments that may only be 1 or null, and why."""

USUAL = frozenset({"max_new_tokens", "do_sample"})
"""Arguments that need no try."""
VOCABULARY = 1 << 18
"""Tokens of the model on which arguments are tried, more than any model has."""


@dataclass(frozen=True, kw_only=True)
class Types:
    """The types of arguments that the library does not check itself."""

    do_sample: bool | None = None
    use_cache: bool | None = None
    num_beams: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None


def check_generation(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with a temperature of 0 as greedy decoding.

    Args:
        arguments: Keyword arguments of `generate`.

    Raises:
        UserError: One of them is unknown, or has a value that no generation can have.
    """
    if not isinstance(arguments, Mapping):
        raise UserError(
            f"generation must hold keyword arguments of generate, such as max_new_tokens; got "
            f"{arguments!r}."
        )
    _check_names(arguments)
    checked = dict(arguments)
    typed = Types.__dataclass_fields__
    check_fields(Types(**{name: checked[name] for name in typed if name in checked}), "generation.")
    if checked.get("temperature") == 0:
        checked = {name: value for name, value in checked.items() if name not in SAMPLING}
        checked["do_sample"] = False
    for name in ("max_new_tokens", "num_beams"):
        value = checked.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UserError(
                f"generation.{name} must be a whole number of at least 1; got {value!r}."
            )
    for name in ("top_p", "typical_p"):  # 1 and more are passed over by the library
        value = checked.get(name)
        if value is not None and not 0 < value <= 1:
            raise UserError(f"generation.{name} must lie in (0, 1]; got {value}.")
    check_pruned_generation(checked)
    try:
        GenerationConfig(**checked).validate()
        if not set(checked) <= USUAL:
            _try(checked)
    except Exception as error:  # whatever the library makes of them, there or in every batch
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"These generation settings cannot be used: {reason}.") from error
    return checked


def _check_names(arguments: Mapping[str, Any]) -> None:
    known = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
    for name, value in arguments.items():
        if name not in known:
            hint = did_you_mean(str(name), known, "; leave it out.")
            raise UserError(f"generate takes no argument {name!r}{hint}")
        if name in REFUSED and value:
            raise UserError(f"generation.{name} {REFUSED[name]}.")
        if name in ONLY_ONE and value not in (None, 1):
            raise UserError(f"generation.{name} must be 1; got {value!r}: {ONLY_ONE[name]}.")


def _try(arguments: Mapping[str, Any]) -> None:
    """Generate two tokens with a model of one tiny layer, which takes milliseconds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=2,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = LlamaForCausalLM(config).eval()
        prompt = torch.ones(1, 2, dtype=torch.long)
        model.generate(prompt, **{**arguments, "max_new_tokens": 2})
