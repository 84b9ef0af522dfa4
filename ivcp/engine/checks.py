"""Checks of selections, and of models and settings with which hooks cannot prune."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import __version__
from transformers.modeling_layers import GradientCheckpointingLayer

from ivcp.core.errors import LibraryTooOldError, UserError
from ivcp.core.selection import Selection

BACKENDS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")


def thorough(device: torch.device) -> bool:
    """Whether to check values of tensors, too: on the CPU, or with IVCP_CHECK=1."""
    return device.type == "cpu" or os.environ.get("IVCP_CHECK") == "1"


def check_selections(
    selections: Any, counts: Sequence[int], hidden: Tensor, pruner: str
) -> list[Selection]:
    """The selections of a sample, one for each image, after a check.

    Args:
        selections: The pruner's answer.
        counts: Current visual tokens of each image.
        hidden: (B, P, C) states that enter the stage's layer.
        pruner: Name of the method, for messages.

    Raises:
        UserError: They cannot be applied.
    """
    if not isinstance(selections, list | tuple) or len(selections) != len(counts):
        raise UserError(
            f"{pruner}.select_sample must give a list of {len(counts)} selections, one an image; "
            f"got {_described(selections)}."
        )
    for selection, count in zip(selections, counts, strict=True):
        try:
            _check(selection, count, hidden)
        except ValueError as error:
            raise UserError(f"{pruner} made a selection that cannot be used: {error}") from None
    return list(selections)


def _check(selection: Any, count: int, hidden: Tensor) -> None:
    if not isinstance(selection, Selection):
        raise ValueError(f"select must give a Selection; got {_described(selection)}.")
    _check_index("keep", selection.keep, count)
    kept = len(selection.keep)
    for name, mask in (selection.reasons or {}).items():
        if not isinstance(name, str) or not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise ValueError(f"reasons must map words to truth values; got {name!r}.")
        if mask.shape != (kept,):
            raise ValueError(f"reason {name!r} must have the shape ({kept},) of keep.")
    _check_states("states", selection.states, kept, hidden)
    merged = 0
    if (selection.merged_at is None) != (selection.merged_states is None):
        raise ValueError("merged_at and merged_states must come together.")
    if selection.merged_at is not None:
        _check_index("merged_at", selection.merged_at, count)
        merged = len(selection.merged_at)
        _check_states("merged_states", selection.merged_states, merged, hidden)
    if not 0 <= selection.merged_before <= merged:
        raise ValueError(f"merged_before must lie in 0 .. {merged}; got {selection.merged_before}.")
    if kept + merged > count:
        raise ValueError(f"it leaves {kept + merged} tokens of {count}.")
    if not kept + merged:
        raise ValueError("it leaves no token of the image; keep at least one.")
    if not thorough(hidden.device):  # the checks below read values, so the host would wait
        return
    if kept > 1 and not (selection.keep.diff() > 0).all():
        raise ValueError("keep must be ascending, each index once.")
    merged_at = selection.keep[:0] if selection.merged_at is None else selection.merged_at
    extremes = torch.cat([selection.keep[:1], selection.keep[-1:], merged_at])
    if extremes.amin() < 0 or extremes.amax() >= count:
        raise ValueError(f"indices must lie in 0 .. {count - 1}, the current tokens of the image.")
    if merged and len(torch.unique(torch.cat([selection.keep, merged_at]))) < len(selection):
        raise ValueError("merged_at must hold each index once, and none that is kept.")


def _check_index(name: str, index: Any, count: int) -> None:
    if not isinstance(index, Tensor) or index.dtype != torch.long or index.ndim != 1:
        raise ValueError(f"{name} must be a one-dimensional int64 tensor; got {_described(index)}.")
    if len(index) > count:
        raise ValueError(f"{name} has {len(index)} indices for {count} tokens.")


def _check_states(name: str, states: Any, count: int, hidden: Tensor) -> None:
    if states is None:
        return
    if not isinstance(states, Tensor) or not states.is_floating_point():
        raise ValueError(f"{name} must be a tensor of numbers; got {_described(states)}.")
    if states.shape != (count, hidden.shape[-1]):
        raise ValueError(
            f"{name} must have the shape ({count}, {hidden.shape[-1]}), one state a token; got "
            f"{tuple(states.shape)}."
        )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return f"a {type(value).__name__}"


def backend_of(decoder: nn.Module) -> str:
    """The attention backend that the language model uses now.

    Raises:
        UserError: Pruning does not support it.
    """
    backend = str(decoder.config._attn_implementation)  # type: ignore[union-attr]
    if backend not in BACKENDS:
        raise UserError(
            f"Pruning supports the attention backends {', '.join(BACKENDS)}; the model uses "
            f"{backend!r}. Load it with attn_implementation='sdpa'."
        )
    return backend


def check_compiled(model: nn.Module) -> None:
    """Refuse a model that is compiled, or that holds compiled modules.

    Raises:
        UserError: It is compiled.
    """
    for module in model.modules():
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod"):
            raise UserError(
                f"{type(module).__name__} is compiled, and compiled code runs no hooks: prune the "
                "model as it was before torch.compile."
            )


def discard_compiled() -> None:
    """Discard code that was compiled since the last call, so that it is compiled again.

    Compiled code runs the hooks that existed when it was compiled, and no others.
    """
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return
    frames = dynamo.utils.counters["frames"]["total"]
    if frames != _compiled["frames"]:  # a reset costs seconds of compiling, so only if needed
        _compiled["frames"] = frames
        torch.compiler.reset()


_compiled = {"frames": 0}


def check_checkpointing(decoder: nn.Module) -> None:
    """Refuse gradient checkpointing where the library runs hooks again in the backward pass.

    Raises:
        LibraryTooOldError: It does, and the decoder checkpoints.
    """
    layer: Any = decoder.layers[0]  # type: ignore[index]
    checkpoints = layer.training and getattr(layer, "gradient_checkpointing", False)
    if checkpoints and torch.is_grad_enabled() and "__call__" in vars(GradientCheckpointingLayer):
        raise LibraryTooOldError(
            f"Gradient checkpointing inside pruned() needs transformers>=5.23; {__version__} is "
            'installed: update it with pip install -U "transformers<6", or call '
            "model.gradient_checkpointing_disable()."
        )


def check_pruned_generation(settings: dict[str, Any]) -> None:
    """Refuse settings of `generate` with which something else than the prompt would be pruned.

    Args:
        settings: The settings of a call, defaults included.

    Raises:
        UserError: One of them is set.
    """
    guessed = "guessed tokens would be taken for the question"
    refused = {
        "prompt_lookup_num_tokens": guessed,
        "assistant_model": guessed,
        "assistant_early_exit": guessed,
        "use_mtp": guessed,
        "prefill_chunk_size": "a part of the prompt would be taken for the whole",
    }
    for name, reason in refused.items():
        if settings.get(name):
            raise UserError(
                f"{name} cannot be used inside pruned(), where {reason}; generate without it."
            )
    if settings.get("use_cache") is False:
        raise UserError(
            "use_cache=False cannot be used inside pruned(), where each step would select anew "
            "with the answer as question; generate with the cache."
        )
