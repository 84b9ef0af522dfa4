"""A slow reference: keep every token, and hide the dropped ones from the right layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ivcp.models import find_family


def hidden_tokens_logits(
    model: Any,
    inputs: dict[str, Tensor],
    sequences: Tensor,
    hidden_from: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """Logits of one teacher-forced forward pass without a cache.

    Args:
        model: A random model of `ivcp.testing` with SDPA attention.
        inputs: A batch of one, without padding.
        sequences: (1, S + N) prompt and generated tokens.
        hidden_from: For each layer, the prompt indices of the tokens that are hidden in prefill and
            those that are hidden in decoding, where the cache of an early layer may be cut too.

    Returns:
        (N, vocabulary) logits that predict the generated tokens.
    """
    prompt, length = inputs["input_ids"].shape[1], sequences.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()

    def hide(layer: int) -> Any:
        mask = causal.clone()
        prefill, decoding = hidden_from[layer]
        mask[:prompt, prefill] = False
        mask[prompt:, decoding] = False
        mask |= torch.eye(length, dtype=torch.bool)

        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "attention_mask": mask[None, None]}

        return hook

    return teacher_forced(model, inputs, sequences, hide)


def teacher_forced(
    model: Any, inputs: dict[str, Tensor], sequences: Tensor, hook_of: Callable[[int], Any]
) -> Tensor:
    """Logits that predict the generated tokens, in one pass without a cache.

    Args:
        model: A random model of `ivcp.testing` with SDPA attention.
        inputs: A batch of one, without padding.
        sequences: (1, S + N) prompt and generated tokens.
        hook_of: Gives the hook that runs before each decoder layer.
    """
    prompt, length = inputs["input_ids"].shape[1], sequences.shape[1]
    handles = [
        layer.register_forward_pre_hook(hook_of(number), with_kwargs=True)
        for number, layer in enumerate(find_family(model).decoder(model).layers)
    ]
    rest = {name: value for name, value in inputs.items() if "mask" not in name}
    rest["input_ids"] = sequences
    if (types := rest.get("mm_token_type_ids")) is not None:
        rest["mm_token_type_ids"] = torch.nn.functional.pad(types, (0, length - prompt))
    try:
        with torch.no_grad():
            out = model(**rest, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return out.logits[0, prompt - 1 : length - 1]
