"""Layers that attend to a window of earlier tokens: pruned only while the window holds them all."""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import Cache

from ivcp.core.errors import UserError
from ivcp.engine.context import SessionContext


def check_window(context: SessionContext, backend: str, cache: Cache | None, width: int) -> None:
    """Refuse a prompt that is longer than the window, and masks that a backend cannot apply.

    Within the window, a sliding layer attends like a full one. Beyond it, masks and caches would
    have to follow the original position of each token.

    Args:
        context: What all forward passes of the session have in common.
        backend: Attention backend.
        cache: The cache, or None.
        width: Tokens that enter, padding included.

    Raises:
        UserError: The prompt is longer, or visual tokens attend in both directions by a backend
            without masks.
    """
    if not context.pruner.stages():
        return
    if context.adapter.bidirectional and backend.startswith("flash_attention"):
        raise UserError(
            "The visual tokens of this model attend to each other in both directions, which "
            f"{backend} has no mask for: use model.attention=sdpa."
        )
    if "sliding" in context.kinds:
        config: Any = context.decoder.config
        past = 0 if cache is None else int(cache.get_seq_length())
        check_length(past + width, int(config.sliding_window))


def check_length(tokens: int, window: int) -> None:
    """Refuse more tokens than the cache of a sliding layer holds beside the newest one.

    Args:
        tokens: Tokens of the text so far, dropped ones included.
        window: Tokens to which a sliding layer attends.

    Raises:
        UserError: There are more.
    """
    if tokens >= window:
        raise UserError(
            "A pruned prompt and its answer must have fewer tokens than the sliding window of this "
            f"model, which is {window}; got {tokens}: shorten the prompt or max_new_tokens."
        )
