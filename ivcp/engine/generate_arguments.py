"""Keyword arguments of `generate`, checked before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from ivcp.core.errors import UserError

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Arguments that mean nothing where answers are greedy."""

NOT_TOKENS = (
    "return_dict_in_generate", "output_scores", "output_logits", "output_attentions",
    "output_hidden_states",
)  # fmt: skip
"""Arguments with which `generate` gives something else than tokens."""


def check_generation(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with a temperature of 0 as greedy decoding.

    Args:
        arguments: Keyword arguments of `generate`.

    Raises:
        UserError: One of them is unknown, or has a value that no generation can have.
    """
    checked = dict(arguments)
    if checked.get("temperature") == 0:
        checked = {name: value for name, value in checked.items() if name not in SAMPLING}
        checked["do_sample"] = False
    config = GenerationConfig()
    for name, value in checked.items():
        if not hasattr(config, name):
            raise UserError(f"generate takes no argument {name!r}; leave generation.{name} out.")
        if name in NOT_TOKENS and value:
            raise UserError(f"generation.{name} must be false: an answer is made of tokens alone.")
    if checked.get("stop_strings"):
        raise UserError(
            "generation.stop_strings needs a tokenizer inside generate, which a run does not pass; "
            "use generation.max_new_tokens or generation.eos_token_id."
        )
    try:
        most = checked.get("max_new_tokens", 1)
        if most is not None and (not isinstance(most, int) or most < 1):
            raise ValueError(f"max_new_tokens must be a whole number of at least 1; got {most!r}")
        GenerationConfig(**checked).validate()
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"These generation settings cannot be used: {reason}.") from error
    return checked
