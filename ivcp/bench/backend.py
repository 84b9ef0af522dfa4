"""Whether the unpruned model runs with a slower attention backend than it could."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

HALF = (torch.float16, torch.bfloat16)


def slower_backend(model: nn.Module, device: torch.device) -> str:
    """A warning that the comparison flatters pruning; empty if no faster backend is known.

    A method that shortens prompts gains most where attention is slow, so that a gain over a slow
    backend is partly that of a better one.

    Args:
        model: The Hugging Face model, with the backend that both sides ran with.
        device: Where it ran.
    """
    loaded: Any = model
    used = loaded.config._attn_implementation
    fast = device.type == "cuda" and loaded.dtype in HALF and find_spec("flash_attn") is not None
    if used == "eager" and getattr(loaded, "_supports_sdpa", True):
        faster = "sdpa"
    elif used == "sdpa" and fast and getattr(loaded, "_supports_flash_attn", False):
        faster = "flash_attention_2"
    else:
        return ""
    return (
        f"Unpruned and pruned ran with attention={used}, though {faster} is available, which is "
        f"faster: measure with model.attention={faster} before you quote a gain."
    )
