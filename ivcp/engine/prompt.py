"""What enters with one forward pass: which rows, which visual tokens, which padding."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import ModelAdapter
from ivcp.core.layout import PromptLayout
from ivcp.engine.cache import check_cache
from ivcp.engine.encoding import Encoding, matching
from ivcp.engine.host import to_host

PIXELS = ("pixel_values", "pixel_values_videos")


@dataclass(frozen=True)
class Chunk:
    """Text that enters without visual tokens.

    Attributes:
        mask: (B, past + S) the caller's padding mask, or None where nothing is padded.
        host: The same on the CPU.
        width: `S`.
        layouts: Layout of each row; empty for a decoding step, which nobody looks at.
    """

    width: int
    mask: Tensor | None = None
    host: Tensor | None = None
    layouts: Sequence[PromptLayout] = ()

    @property
    def real(self) -> Tensor | None:
        """(B, S) False at padding among the new tokens, or None where none is."""
        if self.mask is None or self.host is None or self.host[:, -self.width :].all():
            return None
        return self.mask[:, -self.width :]

    @property
    def past(self) -> Tensor | None:
        """(B, past) False at padding among earlier tokens, or None where none is."""
        if self.mask is None or self.host is None or self.host[:, : -self.width].all():
            return None
        return self.mask[:, : -self.width]


@dataclass(frozen=True)
class Prompt(Chunk):
    """Text and images that enter together: the start of a prefill.

    Attributes, beside those of `Chunk`:
        names: Give each row's sample id.
        facts: Small inputs on the CPU, by which the layouts were found.
        encodings: Calls of the image encoder whose tokens these are, by "image" and "video".
        questions: The user's question of each row, if the caller said.
    """

    names: Sequence[Callable[[], str]] = ()
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    encodings: dict[str, Encoding] = field(default_factory=dict)
    questions: Sequence[str] | None = None

    def take(self, encoding: Encoding) -> None:
        """Take a call of the image encoder for this prompt's."""
        encoding.facts = self.facts
        self.encodings[encoding.kind] = encoding


def read_prompt(
    adapter: ModelAdapter,
    model: nn.Module,
    kwargs: dict[str, Any],
    encodings: list[Encoding],
    identify: Callable[[int, int, Tensor], str],
    questions: Callable[[int], Sequence[str] | None],
) -> Chunk:
    """Find the visual tokens of a forward pass, waiting for the device once.

    Args:
        adapter: How to look inside the model.
        model: The model.
        kwargs: Keyword arguments of the forward pass.
        encodings: Calls of the image encoder that no forward pass has taken yet.
        identify: Gives the id of a row, of so many rows, with these tokens.
        questions: Gives the questions of so many rows.

    Returns:
        A `Prompt` where there are visual tokens.

    Raises:
        UserError: Tokens and images do not belong together.
    """
    ids: Tensor | None = kwargs.get("input_ids")
    embeds: Tensor | None = kwargs.get("inputs_embeds")
    entering = embeds if ids is None else ids
    if entering is None:
        raise UserError("A forward pass inside pruned() needs input_ids.")
    width = entering.shape[1]
    shown = bool(kwargs.get("mm_encoder_outputs")) or any(kwargs.get(n) is not None for n in PIXELS)
    if width == 1 and not shown:
        return Chunk(width)
    if ids is None:
        if adapter.needs_ids:
            check_text(model, entering, shown)
            return Chunk(width, *_masks(kwargs, None))
        ids = torch.full(entering.shape[:2], -1)
    taken = matching(encodings, kwargs)
    inputs = {name: value for name, value in kwargs.items() if value is not None}
    for encoding in taken.values():
        inputs = {**encoding.arguments, **inputs}
    facts = adapter.layout_facts(model, inputs)
    away: dict[str, Tensor] = {f"fact {name}": fact for name, fact in facts.items()}
    away["ids"] = ids
    positions = kwargs.get("position_ids")
    if isinstance(positions, Tensor) and positions.ndim == 3:
        away["positions"] = positions[-3:]
    given = kwargs.get("attention_mask")
    if isinstance(given, Tensor) and given.ndim == 2:
        away["mask"] = given.bool()
    host = to_host(away)
    mask, padding = _masks(kwargs, host.get("mask"))
    tokens, rows = host["ids"], []
    for number, row in enumerate(tokens):
        rows.append(row if padding is None else row[padding[number, -width:]])
    if kwargs.get("pixel_values_videos") is not None and not adapter.takes_videos:
        raise UserError(
            f"{type(model).__name__} takes images only, but pixel_values_videos were "
            "given: pass single frames as images."
        )
    inputs |= {name: host[f"fact {name}"] for name in facts}
    axes = host.get("positions")
    unpadded = None
    if axes is not None:
        unpadded = [
            row if padding is None else row[:, padding[number, -width:]]
            for number, row in enumerate(axes.unbind(1))
        ]
    layouts = adapter.layouts(model, rows, unpadded, inputs)
    if not any(layout.images for layout in layouts):
        return Chunk(width, mask, padding, layouts)
    if embeds is None and not shown:
        raise UserError(
            "The prompt holds image tokens, but the inputs hold no image: pass what the "
            "processor made of it, or take the tokens out."
        )
    names = [functools.partial(identify, number, len(rows), row) for number, row in enumerate(rows)]
    host_facts = {name: inputs[name] for name in facts}
    prompt = Prompt(width, mask, padding, layouts, names, host_facts, {}, questions(len(rows)))
    for encoding in taken.values():
        prompt.take(encoding)
    return prompt


def check_prompt(kwargs: dict[str, Any]) -> None:
    """Refuse a cache or mask with which visual tokens cannot be pruned.

    Raises:
        UserError: The cache is no plain dynamic one, or the mask more than padding.
    """
    if (cache := kwargs.get("past_key_values")) is not None:
        check_cache(cache)
    given = kwargs.get("attention_mask")
    if isinstance(given, Tensor | dict) and (isinstance(given, dict) or given.ndim != 2):
        raise UserError(
            "Pruning supports padding masks of the shape (batch, length) only; got an attention "
            f"mask {'for each kind of layer' if isinstance(given, dict) else tuple(given.shape)}."
        )


def digest(tokens: Tensor) -> str:
    """An id of a prompt, from its token ids."""
    return format(zlib.crc32(tokens.numpy().tobytes()), "08x")


def _masks(kwargs: dict[str, Any], host: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The caller's padding mask, where it is, and on the CPU; None where nothing is padded."""
    given = kwargs.get("attention_mask")
    if not isinstance(given, Tensor) or given.ndim != 2:
        return None, None
    host = given.bool().cpu() if host is None else host
    return (None, None) if host.all() else (given.bool(), host)


def check_text(model: nn.Module, embeds: Tensor, shown: bool) -> None:
    """Accept embeddings of text alone, recognised by being rows of the embedding table.

    Raises:
        UserError: Among them are others, such as those of images.
    """
    table: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    words = 8 // table.element_size()  # so many numbers make up one key of 64 bits
    same = embeds.dtype == table.dtype and not shown

    def keys(rows: Tensor) -> Tensor:
        return rows.detach()[..., :words].contiguous().view(torch.int64)[..., 0]

    if not same or not bool(torch.isin(keys(embeds), keys(table.to(embeds.device))).all()):
        raise UserError(
            "pruned() finds visual tokens by their ids: pass input_ids, not inputs_embeds."
        )
