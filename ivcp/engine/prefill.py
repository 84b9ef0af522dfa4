"""One forward pass in which visual tokens enter: choose, cut, and keep the books."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache

from ivcp.core.devices import to_device
from ivcp.core.family import Anatomy
from ivcp.core.layout import PromptLayout
from ivcp.core.pruner import LAYER_SIGNALS, Pruner
from ivcp.core.selection import Selection
from ivcp.engine.cache import PrunedLayer, extend_valid, keep_slots, pruned_layer
from ivcp.engine.deepstack import DeepStack
from ivcp.engine.masks import attention_mask
from ivcp.engine.rows import Row, pad_left
from ivcp.engine.stopwatch import Stopwatch
from ivcp.engine.view import Forward, ImageView, rotary_rows


@dataclass
class Group:
    """Layers whose caches hold the same tokens of this forward pass.

    Attributes:
        layers: Their indices.
        slots: For each sample, where each present token stands among the last `width` slots.
        width: Slots that this forward pass added to each of them.
    """

    layers: list[int]
    slots: list[Tensor]
    width: int


class Prefill:
    """State of one prefill, driven by the hooks of a session.

    Args:
        family: How to look inside the model.
        pruner: The method.
        backend: Attention backend, decides the form of masks.
        layouts: Layout of each sample's prompt.
        names: Give each sample's id.
        mask: (B, past + S) the caller's padding mask, or None where nothing is padded.
        real: (B, S) its part for the new tokens on the CPU, or None.
    """

    def __init__(
        self,
        family: Anatomy,
        pruner: Pruner,
        backend: str,
        layouts: list[PromptLayout],
        names: Sequence[Callable[[], str]],
        mask: Tensor | None,
        real: Tensor | None,
    ) -> None:
        self.family, self.pruner, self.backend = family, pruner, backend
        self.layouts, self.names, self.mask, self.real = layouts, names, mask, real
        self.stages = {stage.layer: number for number, stage in enumerate(pruner.stages())}
        self.rows: list[Row] = []
        self.groups: list[Group] = []
        self.layer_tokens: list[list[int]] = []
        self.before: list[int] = []
        self.cached: list[list[int]] = []
        self.cache: Cache | None = None
        self.valid: Tensor | None = None
        self.source: Tensor | None = None
        self.scratch: Cache | None = None
        self.deepstack: DeepStack | None = None
        self.shared: dict[Any, Any] = {}

    def begin(self, decoder: nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take the position ids with which the language model is called.

        Features that the language model would add to its visual tokens behind early layers are
        taken over, because it would look for them where they stood before the cut.
        """
        self.decoder = decoder
        self.given_positions: Tensor | None = kwargs.get("position_ids")
        if kwargs.get("deepstack_visual_embeds") is None:
            return kwargs
        self.deepstack = DeepStack(kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"])
        return {**kwargs, "visual_pos_masks": None, "deepstack_visual_embeds": None}

    def before_layer(
        self, index: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states and keyword arguments with which the layer is to run."""
        cache: Cache | None = kwargs.get("past_key_values")
        if index == 0:
            self._first(hidden, cache)
        elif self.deepstack is not None:
            hidden = self.deepstack.added(index - 1, hidden, self.source)
        if (number := self.stages.get(index)) is not None:
            with self.clock.running(hidden.device):
                hidden = self._stage(number, index, hidden)
        self.layer_tokens.append([len(row) for row in self.rows])
        self.before.append(_slots(cache, index))
        self.cached.append([self.before[index] + len(row) for row in self.rows])
        if self.source is not None:
            kwargs = self._narrowed(index, hidden, kwargs)
        if index + 1 in self.stages and self.pruner.needs & LAYER_SIGNALS:
            self.forward.layer, self.forward.rotary = layer, kwargs.get("position_embeddings")
            self.forward.layer_input = hidden if "attention" in self.pruner.needs else None
            if cache is None:  # the layer's keys and values are still needed, once
                self.scratch = DynamicCache()
                kwargs = {**kwargs, "past_key_values": self.scratch}
        return hidden, kwargs

    def _first(self, hidden: Tensor, cache: Cache | None) -> None:
        """Set up the books when the prompt enters layer 0."""
        rows, width = hidden.shape[:2]
        device = hidden.device
        self.clock = Stopwatch()
        self.cache, self.width = cache, width
        self.past = 0 if cache is None else cache.get_seq_length()
        columns = [torch.arange(width, device=device)] * rows
        if self.mask is not None and self.real is not None:
            columns = [to_device(row.nonzero()[:, 0], device) for row in self.real]
            self.mask = self.mask.bool().to(device)
            self.valid = self.mask[:, -width:]
        self.rows = [Row.begin(*pair) for pair in zip(self.layouts, columns, strict=True)]
        positions = self.given_positions
        if positions is None:
            positions = torch.arange(self.past, self.past + width, device=device)
        if positions.ndim < 3:
            positions = positions.reshape(1, -1, width)
        positions = positions[-3:].expand(-1, rows, -1)  # (A, B, S); a fourth row counts text
        self.forward = Forward(
            family=self.family,
            layers=len(self.decoder.layers),  # type: ignore[arg-type]
            positions=positions,
            embeddings=hidden if "embeddings" in self.pruner.needs else None,
            inverse_frequencies=self.decoder.rotary_emb.inv_freq,  # type: ignore[union-attr,arg-type]
            hidden=hidden,
        )

    def _stage(self, number: int, index: int, hidden: Tensor) -> Tensor:
        """Choose and drop tokens before layer `index`."""
        for row in self.rows:  # layers may be spread over several devices
            row.to(hidden.device)
        self._observe(index, hidden)
        selections = [
            [self.pruner.select(view, number) for view in self._views(batch, row)]
            for batch, row in enumerate(self.rows)
        ]
        lengths = [len(row) for row in self.rows]
        merging = any(s.merged_states is not None for found in selections for s in found)
        chosen = [row.chosen(found) for row, found in zip(self.rows, selections, strict=True)]
        self._open_group(index, hidden.shape[1])
        if merging or [len(tokens) for tokens in chosen] != lengths:
            hidden = self._drop(chosen, hidden, cut=self.pruner.stages()[number].cut_cache)
            self._place_merged(selections, hidden)
        self.forward.layer_input = self.forward.keys = self.forward.values = None
        self.forward.hidden, self.scratch = hidden, None
        return hidden

    def _observe(self, index: int, hidden: Tensor) -> None:
        """Point the view at the layer that has just run."""
        forward = self.forward
        forward.hidden = hidden
        forward.positions = forward.positions.to(hidden.device)
        forward.inverse_frequencies = forward.inverse_frequencies.to(hidden.device)
        if index == 0 or not self.pruner.needs & LAYER_SIGNALS:
            return
        cache = self.scratch if self.cache is None else self.cache
        if cache is None:
            raise RuntimeError("no layer has run before this stage")
        layer = cache.layers[index - 1]
        forward.keys, forward.values = layer.keys, layer.values
        forward.valid = None
        stored = layer.keys.shape[2]
        known = layer.valid if isinstance(layer, PrunedLayer) else self.mask
        if self.cache is None:
            known = self.valid
        if known is not None:
            forward.valid = torch.ones(len(known), stored, dtype=torch.bool, device=hidden.device)
            forward.valid[:, : known.shape[1]] = known

    def _views(self, batch: int, row: Row) -> list[ImageView]:
        return [
            ImageView(
                self.forward, batch, row, image, row.layout.text_queries(image.layout),
                self.names[batch],
            )
            for image in row.images
        ]  # fmt: skip

    def _open_group(self, index: int, width: int) -> None:
        """The layers since the last stage hold what is present now."""
        first = 1 + max((layer for group in self.groups for layer in group.layers), default=-1)
        if first < index:
            columns = [row.columns for row in self.rows]
            self.groups.append(Group(list(range(first, index)), columns, width))

    def _drop(self, chosen: list[Tensor], hidden: Tensor, *, cut: bool) -> Tensor:
        """Keep the chosen tokens of each row in the hidden states and, if asked, in the caches."""
        columns = [row.columns[tokens] for row, tokens in zip(self.rows, chosen, strict=True)]
        slots, self.valid = pad_left(columns)
        width = slots.shape[1]
        for row, tokens in zip(self.rows, chosen, strict=True):
            row.origin = row.origin[tokens]
            row.columns = torch.arange(width - len(tokens), width, device=hidden.device)
        for group in self.groups:
            group.slots = [
                s.to(tokens.device)[tokens] for s, tokens in zip(group.slots, chosen, strict=True)
            ]
            if cut:
                self._cut(group)
        self.source, _ = pad_left([row.first[row.origin] for row in self.rows])
        self.shared = {}
        if len(slots) == 1:
            return hidden.index_select(1, slots[0])
        return hidden.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))

    def _cut(self, group: Group) -> None:
        slots, _ = pad_left(group.slots)  # padded like the rows, so `self.valid` describes it too
        for index in group.layers:
            if self.cache is not None:
                layer = pruned_layer(self.cache, index)
                keep_slots(layer, slots, self.valid, group.width)
            self.cached[index] = [self.before[index] + len(row) for row in self.rows]
        group.width = slots.shape[1]
        group.slots = [row.columns for row in self.rows]

    def _place_merged(self, selections: list[list[Selection]], hidden: Tensor) -> None:
        """Overwrite the states of merged tokens, the last ones of their image."""
        for batch, (row, found) in enumerate(zip(self.rows, selections, strict=True)):
            for image, selection in zip(row.images, found, strict=True):
                if (merged := selection.merged_states) is not None:
                    places = row.columns[image.places[len(selection.keep) :]]
                    hidden[batch, places] = merged.to(hidden.dtype)

    def _narrowed(self, index: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Mask and position embeddings for the tokens that are left."""
        rows, width = hidden.shape[:2]
        stored, valid = width, self.valid
        if self.cache is not None:
            layer = pruned_layer(self.cache, index)
            stored = layer.stored + width
            extend_valid(layer, layer.stored, rows, self.valid)
            layer.dropped += self.width - width
            layer.renumbered = self.pruner.renumbers()
            valid = layer.valid
        if (key := ("mask", stored, hidden.device)) not in self.shared:
            self.shared[key] = attention_mask(self.backend, width, valid, stored, hidden)
        if "rotary" not in self.shared:
            self.shared["rotary"] = self._rotary(hidden, kwargs.get("position_embeddings"))
        return {
            **kwargs,
            "attention_mask": self.shared[key],
            "position_embeddings": self.shared["rotary"],
            "position_ids": None,  # flash attention would take gaps for packed sequences
        }

    def _rotary(self, hidden: Tensor, given: Any) -> Any:
        source = self.source
        if source is None:
            raise RuntimeError("nothing was dropped")
        if self.pruner.renumbers():
            columns = torch.arange(source.shape[1], device=hidden.device)
            pads = torch.tensor([source.shape[1] - len(row) for row in self.rows])
            pads = to_device(pads, hidden.device)
            ids = (columns - pads[:, None]).clamp_min(0) + self.past
            if len(self.forward.positions) > 1:
                ids = ids.expand(len(self.forward.positions), -1, -1)
            return self.decoder.rotary_emb(hidden, ids)  # type: ignore[operator]

        def choose(part: Tensor) -> Tensor:
            part = part.expand(len(source), *part.shape[1:])
            index = source.to(part.device)[..., None].expand(-1, -1, part.shape[-1])
            return part.gather(1, index)

        return rotary_rows(given, choose)

    def cache_lengths(self) -> list[list[int]]:
        """[layer][sample] tokens in the cache, the slots of earlier turns included."""
        return [] if self.cache is None else self.cached

    def cache_bytes(self) -> int:
        """Bytes that the whole cache takes."""
        if self.cache is None:
            return 0
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


def _slots(cache: Cache | None, index: int) -> int:
    """Slots that a layer of a cache stores."""
    if cache is None or index >= len(cache.layers) or not cache.layers[index].is_initialized:
        return 0
    return int(cache.layers[index].keys.shape[2])
