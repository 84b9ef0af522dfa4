"""A slow reference: keep every token, and hide the dropped ones from the right layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from ivcp.core.layer_kinds import layer_kinds
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
    causal = attended(model, inputs, length)
    orders: list[Tensor | None] = []

    def hide(layer: int) -> Any:
        mask = causal.clone()
        prefill, decoding = hidden_from[layer]
        orders.append(without(length, prefill))
        mask[:prompt, prefill] = False
        mask[prompt:, decoding] = False
        mask |= torch.eye(length, dtype=torch.bool)

        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "attention_mask": mask[None, None]}

        return hook

    return teacher_forced(model, inputs, sequences, hide, lambda layer: orders[layer])


def without(length: int, tokens: Tensor) -> Tensor:
    """Ascending indices of all tokens but some."""
    others = torch.ones(length, dtype=torch.bool)
    others[tokens] = False
    return others.nonzero()[:, 0]


def attended(model: Any, inputs: dict[str, Tensor], length: int) -> Tensor:
    """(length, length) what each token attends to: those before, and all of its image."""
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return causal | same_image(inputs, length) if find_family(model).bidirectional else causal


@contextmanager
def exact_recurrence() -> Iterator[None]:
    """The gated delta rule token by token in double precision; the library's is in single."""
    try:
        from transformers.models.qwen3_5 import modeling_qwen3_5 as library
    except ImportError:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"):
            patch.setattr(library, name, delta_rule)
        yield


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Source: Gated DeltaNet (arXiv 2412.06464), equation 10, with normalised queries and keys."""
    repeats = value.shape[2] // key.shape[2]
    query, key = (
        (states / (states.square().sum(-1, keepdim=True) + 1e-6).sqrt()).repeat_interleave(
            repeats, 2
        )
        for states in (query, key)
    )
    rows, tokens, heads, dim = key.shape
    state = value.new_zeros(rows, heads, dim, value.shape[-1])
    state = state if initial_state is None else initial_state
    outputs = []
    for token in range(tokens):
        k, v = key[:, token, :, :, None], value[:, token, :, None]  # (B, H, Dk, 1), (B, H, 1, Dv)
        state = state * g[:, token, :, None, None].exp()
        state = state + k * (v - (k * state).sum(2, keepdim=True)) * beta[:, token, :, None, None]
        outputs.append((query[:, token, :, :, None] * state).sum(2) / dim**0.5)
    return torch.stack(outputs, 1), state


def same_image(inputs: dict[str, Tensor], length: int) -> Tensor:
    """(length, length) True where both tokens belong to the same image."""
    is_image = torch.nn.functional.pad(inputs["token_type_ids"][0] == 1, (1, 0))
    number = (is_image[1:] & ~is_image[:-1]).cumsum(0) * is_image[1:]  # 0 for text
    number = torch.nn.functional.pad(number, (0, length - len(number)))
    return (number[:, None] == number) & (number > 0)


def rerun(order: Tensor) -> Any:
    """A hook behind a linear layer, which runs it again on some tokens in this order.

    Its state has no mask: a token that entered it cannot be hidden, only left out.
    """

    def hook(module: Any, args: Any, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        output = output.clone()
        output[:, order] = module.forward(args[0][:, order], **kwargs)
        return output

    return hook


def unmasked(hook: Any) -> Any:
    """The hook, but the layer gets no mask."""

    def changed(*args: Any) -> Any:
        new, kwargs = hook(*args)
        return new, {**kwargs, "attention_mask": None}

    return changed


def teacher_forced(
    model: Any,
    inputs: dict[str, Tensor],
    sequences: Tensor,
    hook_of: Callable[[int], Any],
    order_of: Callable[[int], Any],
) -> Tensor:
    """Logits that predict the generated tokens, in one pass without a cache.

    Args:
        model: A random model of `ivcp.testing` with SDPA attention.
        inputs: A batch of one, without padding.
        sequences: (1, S + N) prompt and generated tokens.
        hook_of: Gives the hook that runs before each decoder layer, with masks for attention.
        order_of: Gives the tokens that enter a linear layer, in order, asked behind `hook_of`.
    """
    prompt, length = inputs["input_ids"].shape[1], sequences.shape[1]
    decoder, handles = find_family(model).decoder(model), []
    for number, kind in enumerate(layer_kinds(decoder.config)):
        layer, hook = decoder.layers[number], hook_of(number)
        if kind == "linear":
            hook = unmasked(hook)
            after = rerun(order_of(number))
            handles.append(layer.register_forward_hook(after, with_kwargs=True))
        handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
    rest = {name: value for name, value in inputs.items() if "mask" not in name}
    rest["input_ids"] = sequences
    for name in ("mm_token_type_ids", "token_type_ids"):
        if (types := rest.get(name)) is not None:
            rest[name] = torch.nn.functional.pad(types, (0, length - prompt))
    try:
        with torch.no_grad():
            out = model(**rest, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return out.logits[0, prompt - 1 : length - 1]
