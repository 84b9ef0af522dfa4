"""What enters with one forward pass: rows, visual tokens and padding."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ivcp.core.errors import UserError
from ivcp.core.family import ModelAdapter
from ivcp.core.layout import PromptLayout
from ivcp.engine.cache import cache_of, check_cache
from ivcp.engine.encoder_call import EncoderCall, matching_calls
from ivcp.engine.host import to_host

PIXELS = ("pixel_values", "pixel_values_videos")


def has_images(kwargs: Mapping[str, Any]) -> bool:
    """Whether keyword arguments of a model hold images, encoded or not."""
    encoded = bool(kwargs.get("mm_encoder_outputs"))
    return encoded or any(kwargs.get(name) is not None for name in PIXELS)


@dataclass(frozen=True)
class Chunk:
    """Text that enters without visual tokens.

    Attributes:
        width: `S`.
        mask: (B, past + S) the caller's padding mask, or None where nothing is padded.
        host_mask: The same on the CPU.
        layouts: Layout of each row; empty for a decoding step, where nothing needs it.
    """

    width: int
    mask: Tensor | None = None
    host_mask: Tensor | None = None
    layouts: Sequence[PromptLayout] = ()

    @property
    def real(self) -> Tensor | None:
        """(B, S) False at padding among the new tokens, or None where no token is padding."""
        if self.mask is None or self.host_mask is None or self.host_mask[:, -self.width :].all():
            return None
        return self.mask[:, -self.width :]

    @property
    def past(self) -> Tensor | None:
        """(B, past) False at padding among earlier tokens, or None where no token is padding."""
        if self.mask is None or self.host_mask is None or self.host_mask[:, : -self.width].all():
            return None
        return self.mask[:, : -self.width]


@dataclass(frozen=True)
class Prompt(Chunk):
    """Text and images that enter together: the start of a prefill.

    Attributes, beside those of `Chunk`:
        make_ids: For each row, a function that makes the sample's id.
        host_inputs: Small inputs on the CPU, from which the layouts were made.
        encoder_calls: The calls that encoded these images, by "image" and "video".
        questions: The user's question of each row, if the caller set them.
    """

    make_ids: Sequence[Callable[[], str]] = ()
    host_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    encoder_calls: dict[str, EncoderCall] = field(default_factory=dict)
    questions: Sequence[str] | None = None

    def add(self, call: EncoderCall) -> None:
        """Note a call of the image encoder that encoded images of this prompt."""
        call.host_inputs = self.host_inputs
        self.encoder_calls[call.kind] = call


def read_prompt(
    adapter: ModelAdapter,
    model: nn.Module,
    kwargs: dict[str, Any],
    encoder_calls: list[EncoderCall],
    make_id: Callable[[int, int, Tensor], str],
    questions: Callable[[int], Sequence[str] | None],
) -> Chunk:
    """Find the visual tokens of a forward pass; the host waits for the device once.

    Args:
        adapter: How to look inside the model.
        model: The model.
        kwargs: Keyword arguments of the forward pass.
        encoder_calls: Calls of the image encoder that belong to no forward pass yet.
        make_id: Makes a sample id from the row's number, the number of rows and the row's tokens.
        questions: Returns the questions for a number of rows.

    Returns:
        A `Prompt` if there are visual tokens, otherwise a `Chunk`.

    Raises:
        UserError: The image tokens do not match the images.
    """
    ids: Tensor | None = kwargs.get("input_ids")
    embeds: Tensor | None = kwargs.get("inputs_embeds")
    entering = embeds if ids is None else ids
    if entering is None:
        raise UserError("A forward pass inside pruned() needs input_ids.")
    width = entering.shape[1]
    with_images = has_images(kwargs)
    if width == 1 and not with_images:  # decoding: nothing is read, so the host never waits
        return Chunk(width)
    if ids is None:
        if adapter.needs_ids:
            check_text(model, entering, with_images)
            return Chunk(width, *_masks(kwargs, None))
        ids = torch.full(entering.shape[:2], -1)
    calls = matching_calls(encoder_calls, kwargs)
    inputs = {name: value for name, value in kwargs.items() if value is not None}
    for call in calls.values():
        inputs = {**call.arguments, **inputs}
    small = adapter.layout_inputs(model, inputs)
    # everything that the host has to read is copied at once, so that it waits once
    remote: dict[str, Tensor] = {f"input {name}": tensor for name, tensor in small.items()}
    remote["ids"] = ids
    positions, mask_input = kwargs.get("position_ids"), kwargs.get("attention_mask")
    if isinstance(positions, Tensor) and positions.ndim == 3:
        remote["positions"] = positions[-3:]
    if isinstance(mask_input, Tensor) and mask_input.ndim == 2:
        remote["mask"] = mask_input.bool()
    host = to_host(remote)
    mask, host_mask = _masks(kwargs, host.get("mask"))

    def unpadded(rows: Iterable[Tensor]) -> list[Tensor]:
        """Rows (..., S) without their padding."""
        if host_mask is None:
            return list(rows)
        return [row[..., host_mask[number, -width:]] for number, row in enumerate(rows)]

    rows = unpadded(host["ids"])
    axes = unpadded(host["positions"].unbind(1)) if "positions" in host else None
    if kwargs.get("pixel_values_videos") is not None and not adapter.takes_videos:
        raise UserError(
            f"{type(model).__name__} takes images only, but pixel_values_videos were "
            "given: pass single frames as images."
        )
    host_inputs = {name: host[f"input {name}"] for name in small}
    layouts = adapter.layouts(model, rows, axes, inputs | host_inputs)
    if not any(layout.images for layout in layouts):
        return Chunk(width, mask, host_mask, layouts)
    if embeds is None and not with_images:
        raise UserError(
            "The prompt holds image tokens, but the inputs hold no image: pass what the "
            "processor made of it, or take the tokens out."
        )
    make_ids = [partial(make_id, number, len(rows), row) for number, row in enumerate(rows)]
    prompt = Prompt(
        width, mask, host_mask, layouts, make_ids, host_inputs, {}, questions(len(rows))
    )
    for call in calls.values():
        prompt.add(call)
    return prompt


def prompt_positions(
    positions: Tensor | None, chunk: Chunk, cache: Cache | None, embeds: Tensor
) -> Tensor:
    """(A, B, S) position ids of the tokens that enter layer 0.

    Args:
        positions: The language model's position ids, or None if it counts by itself.
        chunk: The tokens that enter.
        cache: The cache, or None.
        embeds: (B, S, C) what enters layer 0.
    """
    if positions is None and chunk.mask is not None:
        # the model counts padding, too; IVC tokens must not depend on it
        counted = chunk.mask.to(embeds.device).cumsum(1) - 1
        return counted[None, :, -embeds.shape[1] :].clamp_min(0)
    return model_positions(positions, cache, embeds)


def model_positions(positions: Tensor | None, cache: Cache | None, embeds: Tensor) -> Tensor:
    """(A, B, S) positions as the language model counts them, padding included.

    Args:
        positions: Its position ids, or None if it counts by itself.
        cache: The cache, or None.
        embeds: (B, S, C) what enters layer 0.
    """
    rows, width = embeds.shape[:2]
    if positions is not None:
        positions = positions if positions.ndim == 3 else positions.reshape(1, -1, width)
        return positions[-3:].expand(-1, rows, -1)  # Qwen's fourth row numbers text alone
    past = 0 if cache is None else cache.get_seq_length()
    return torch.arange(past, past + width, device=embeds.device).expand(1, rows, -1)


def check_prompt(kwargs: dict[str, Any]) -> None:
    """Refuse a cache or mask with which visual tokens cannot be pruned.

    Raises:
        UserError: The cache is not a plain dynamic one, or the mask is not a padding mask.
    """
    if (cache := cache_of(kwargs)) is not None:
        check_cache(cache)
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor | dict) and (isinstance(mask, dict) or mask.ndim != 2):
        raise UserError(
            "Pruning supports padding masks of the shape (batch, length) only; got an attention "
            f"mask {'for each kind of layer' if isinstance(mask, dict) else tuple(mask.shape)}."
        )


def digest(tokens: Tensor) -> str:
    """A sample id made of a prompt's token ids."""
    return format(zlib.crc32(tokens.numpy().tobytes()), "08x")


def _masks(kwargs: dict[str, Any], host: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The caller's padding mask, on its device and on the CPU; None where nothing is padded."""
    mask = kwargs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return None, None
    host = mask.bool().cpu() if host is None else host
    return (None, None) if host.all() else (mask.bool(), host)


def check_text(model: nn.Module, embeds: Tensor, with_images: bool) -> None:
    """Refuse embeddings that are not text; embeddings of text are rows of the embedding table.

    Raises:
        UserError: Among them are others, such as those of images.
    """
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    # the leading 64 bits of a row identify it, and `isin` compares integers
    numbers = 8 // embedding.weight.element_size()
    table: Tensor = embedding.weight[:, :numbers]
    if (scale := getattr(embedding, "embed_scale", None)) is not None:  # Gemma
        table = table * scale.to(table.dtype)
    comparable = embeds.dtype == table.dtype and not with_images

    def keys(rows: Tensor) -> Tensor:
        return rows.detach()[..., :numbers].contiguous().view(torch.int64)[..., 0]

    if not comparable or not bool(torch.isin(keys(embeds), keys(table.to(embeds.device))).all()):
        raise UserError(
            "pruned() finds visual tokens by their ids: pass input_ids, not inputs_embeds."
        )
