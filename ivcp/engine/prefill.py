"""One forward pass in which visual tokens enter: select, drop, and keep the bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ivcp.core.devices import to_device
from ivcp.core.selection import Selection
from ivcp.core.view import LAYER_SIGNALS
from ivcp.engine.cache import PrunedLayer, SlotMask, pruned_layer, stored_slots
from ivcp.engine.checks import check_selections
from ivcp.engine.deepstack import DeepStack
from ivcp.engine.layer_inputs import LayerInputs
from ivcp.engine.parts import ModelParts
from ivcp.engine.prompt import Prompt
from ivcp.engine.sample_tokens import KEPT, MERGED, Row, pad_left
from ivcp.engine.signals import LayerSignals, rotary_rows
from ivcp.engine.stopwatch import Stopwatch
from ivcp.engine.stored import StoredTokens
from ivcp.engine.view import Forward, ImageView


@dataclass
class LayerRun:
    """A decoder layer that is about to run, or has just run.

    Attributes:
        layer: The layer.
        entering: (B, P, C) its input.
        rotary: Its position embeddings.
    """

    layer: nn.Module
    entering: Tensor
    rotary: Any


@dataclass
class Lengths:
    """What is counted for the session's results, on the host.

    Attributes:
        layer_tokens: [layer][sample] tokens that each layer processed.
        before: [layer] slots of earlier turns.
        cached: [layer][sample] tokens in the cache.
    """

    layer_tokens: list[list[int]] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    cached: list[list[int]] = field(default_factory=list)


class Prefill:
    """State of one prefill; it begins when the language model is called with the whole prompt.

    Args:
        parts: What stays the same in all passes.
        prompt: What enters.
        backend: Attention backend, decides the form of masks.
        embeds: (B, S, C) what enters layer 0.
        positions: The language model's position ids, or None if it counts by itself.
        cache: The cache, or None.
        deepstack: Features that enter behind early layers, if any.
    """

    def __init__(
        self,
        parts: ModelParts,
        prompt: Prompt,
        backend: str,
        embeds: Tensor,
        positions: Tensor | None,
        cache: Cache | None,
        deepstack: DeepStack | None,
    ) -> None:
        rows, width = embeds.shape[:2]
        device = embeds.device
        self.parts, self.prompt, self.backend = parts, prompt, backend
        self.cache, self.width, self.deepstack = cache, width, deepstack
        self.stages = {stage.layer: n for n, stage in enumerate(parts.pruner.stages())}
        self.clock, self.lengths = Stopwatch(), Lengths()
        self.stored = StoredTokens()
        self.reasons = [KEPT, MERGED]
        self.source: Tensor | None = None  # (B, P) columns at which what is left entered layer 0
        self.last_run: LayerRun | None = None
        real = prompt.real
        columns = [torch.arange(width, device=device)] * rows
        if real is not None and prompt.host is not None:
            host = prompt.host[:, -width:]
            columns = [to_device(row.nonzero()[:, 0], device) for row in host]
        self.rows = [Row.begin(*pair) for pair in zip(prompt.layouts, columns, strict=True)]
        self.past = None if prompt.past is None else SlotMask(prompt.past)
        self.bases: list[SlotMask | None] = []  # of each layer that has run, before it ran
        self.narrowed: Any = None
        self.inputs = self._inputs(real)
        needs = frozenset().union(*(stage.needs for stage in parts.pruner.stages()))
        self.embeddings = embeds if "embeddings" in needs else None
        self.positions = self._positions(positions, rows, device)
        self.inverse_frequencies = to_device(parts.inverse_frequencies, device)

    def _inputs(self, real: Tensor | None) -> LayerInputs:
        return LayerInputs(self.parts.decoder, self.parts.axes, self.backend, real, self.past)

    def _positions(self, given: Tensor | None, rows: int, device: torch.device) -> Tensor:
        """(A, B, S) positions of the prompt; where the model counts padding too, it is left out."""
        if given is not None:
            given = given if given.ndim == 3 else given.reshape(1, -1, self.width)
            return given[-3:].expand(-1, rows, -1)  # a fourth row counts text
        if self.prompt.mask is not None:
            counted = self.prompt.mask.to(device).cumsum(1) - 1
            return counted[None, :, -self.width :].clamp_min(0)
        past = 0 if self.cache is None else self.cache.get_seq_length()
        return torch.arange(past, past + self.width, device=device).expand(1, rows, -1)

    def before_layer(
        self, index: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states and keyword arguments with which the layer is to run."""
        if index == 0:  # the language model may have made one itself
            self.cache = kwargs.get("past_key_values")
        if index and self.deepstack is not None:
            hidden = self.deepstack.added(index - 1, hidden, self.source)
        if (number := self.stages.get(index)) is not None:
            with self.clock.running(hidden.device):
                hidden = self._stage(number, LayerRun(layer, hidden, kwargs["position_embeddings"]))
            if number + 1 == len(self.stages):  # nothing looks at these again
                self.embeddings = None
                self.prompt.encodings.clear()
        counts, before = self.lengths, stored_slots(self.cache, index)
        self.bases.append(self._base(index))
        counts.layer_tokens.append([len(row) for row in self.rows])
        counts.before.append(before)
        counts.cached.append([before + len(row) for row in self.rows])
        kwargs = {**kwargs, **self._changed(index, hidden, kwargs["position_embeddings"])}
        self.last_run = None
        if index + 1 in self.stages:  # the only layers of which anything may be asked
            self.last_run = LayerRun(layer, hidden, kwargs["position_embeddings"])
        return hidden, kwargs

    def _changed(self, index: int, hidden: Tensor, rotary: Any) -> dict[str, Any]:
        """Keyword arguments that no longer fit what enters the layer, or what it has stored."""
        if self.source is None and self._pruned_before(index) is None:
            return {}
        changed = {"position_embeddings": self._rotary(index, hidden, rotary)}
        if self.cache is None:
            return changed | self.inputs.without_cache(hidden)
        renumbered = self.source is not None and self.parts.pruner.renumbers()
        layer = pruned_layer(self.cache, index, self.past)
        changed |= self.inputs.with_cache(self.cache, index, hidden)
        layer.renumbered |= renumbered
        layer.dropped += self.width - hidden.shape[1]
        return changed

    def _pruned_before(self, index: int) -> PrunedLayer | None:
        """The layer's cache, where an earlier pass has pruned it."""
        if self.cache is None or index >= len(self.cache.layers):
            return None
        layer = self.cache.layers[index]
        return layer if isinstance(layer, PrunedLayer) else None

    def _base(self, index: int) -> SlotMask | None:
        """Which slots of earlier turns hold tokens in a layer that has not run yet."""
        pruned = self._pruned_before(index)
        if pruned is not None:
            return pruned.mask
        return self.past if stored_slots(self.cache, index) else None

    def _rotary(self, index: int, hidden: Tensor, given: Any) -> Any:
        """Position embeddings of what enters a layer now."""
        pruned, dropped = self._pruned_before(index), self.source is not None
        if (dropped and self.parts.pruner.renumbers()) or (pruned and pruned.renumbered):
            return self.inputs.gapless(self._base(index), stored_slots(self.cache, index), hidden)
        return self._narrowed(given) if dropped else given

    def _narrowed(self, rotary: Any) -> Any:
        """Position embeddings of the tokens that are left, in their own positions."""
        if self.narrowed is None and (source := self.source) is not None:

            def choose(part: Tensor) -> Tensor:
                part = part.expand(len(source), *part.shape[1:])
                index = source.to(part.device)[..., None].expand(-1, -1, part.shape[-1])
                return part.gather(1, index)

            self.narrowed = rotary_rows(rotary, choose)
        return self.narrowed

    def _stage(self, number: int, run: LayerRun) -> Tensor:
        """Select and drop tokens before a layer; gives what is to enter it."""
        hidden, pruner = run.entering, self.parts.pruner
        stage = pruner.stages()[number]
        for row in self.rows:  # layers may be spread over several devices
            row.to(hidden.device)
        forward = self._forward(number, run)
        selections = []
        for batch, row in enumerate(self.rows):
            views = [
                ImageView(forward, batch, row, image, self.prompt.names[batch])
                for image in row.images
            ]
            found = pruner.select_sample(views, number) if views else []
            counts = [len(image.index) for image in row.images]
            selections.append(check_selections(found, counts, hidden, type(pruner).__name__))
        lengths = [len(row) for row in self.rows]
        chosen = [
            row.chosen(found, self.reasons)
            for row, found in zip(self.rows, selections, strict=True)
        ]
        self.stored.close_group(stage.layer, [row.columns for row in self.rows], hidden.shape[1])
        changed = any(
            one.merged_states is not None or one.states is not None
            for found in selections
            for one in found
        )
        if changed or [len(tokens) for tokens in chosen] != lengths:
            hidden = self._drop(chosen, hidden, earlier=stage.prune_earlier_kv)
            self._place_states(selections, hidden)
        return hidden

    def _forward(self, number: int, run: LayerRun) -> Forward:
        """What the stage shows to pruners."""
        parts, device = self.parts, run.entering.device
        stage = parts.pruner.stages()[number]
        self.positions = self.positions.to(device)
        self.inverse_frequencies = self.inverse_frequencies.to(device)
        return Forward(
            pruner=type(parts.pruner).__name__,
            layers=parts.depth,
            positions=self.positions,
            inverse_frequencies=self.inverse_frequencies,
            embeddings=self.embeddings,
            encodings=self.prompt.encodings,
            questions=self.prompt.questions,
            text_encoder=parts.text_encoder,
            stage=stage,
            hidden=run.entering,
            signals=self._signals(number, run) if stage.needs & LAYER_SIGNALS else None,
        )

    def _signals(self, number: int, run: LayerRun) -> LayerSignals:
        """What the layer before the stage has shown, or the layer behind it is going to show."""
        stage = self.parts.pruner.stages()[number]
        if stage.signals_from == "next":
            index, base = stage.layer, self._base(stage.layer)
            rotary = self._rotary(index, run.entering, run.rotary)
            shown = LayerRun(run.layer, run.entering, rotary)
            before = stored_slots(self.cache, index)
        else:
            if self.last_run is None:
                raise RuntimeError("no layer has run before this stage")
            index, shown = stage.layer - 1, self.last_run
            base, before = self.bases[index], self.lengths.before[index]
        total = before + shown.entering.shape[1]
        mask, real = self.inputs.grown(base, before), None
        if mask is not None:
            real = torch.ones(len(mask.real), total, dtype=torch.bool, device=run.entering.device)
            real[:, : mask.real.shape[1]] = mask.real[:, :total]
        stored = None
        if held := stored_slots(self.cache, index):
            layer = self.cache.layers[index]  # type: ignore[union-attr]
            stored = layer.keys, layer.values
        return LayerSignals(
            self.parts.adapter, shown.layer, shown.entering, shown.rotary, stored,
            has_run=held == total, real=real, device=run.entering.device,
        )  # fmt: skip

    def _drop(self, chosen: list[Tensor], hidden: Tensor, *, earlier: bool) -> Tensor:
        """Keep the chosen tokens of each row in the hidden states and, if asked, in the caches."""
        columns = [row.columns[tokens] for row, tokens in zip(self.rows, chosen, strict=True)]
        slots, real = pad_left(columns)
        width = slots.shape[1]
        for row, tokens in zip(self.rows, chosen, strict=True):
            row.origin = row.origin[tokens]
            row.columns = torch.arange(width - len(tokens), width, device=hidden.device)
        self.inputs, self.narrowed = self._inputs(real), None
        self.stored.keep(chosen)
        if earlier:
            self._prune_earlier()
        self.source, _ = pad_left([row.first[row.origin] for row in self.rows])
        if len(slots) == 1:
            return hidden.index_select(1, slots[0])
        return hidden.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))

    def _prune_earlier(self) -> None:
        """Take dropped tokens out of the caches of layers that have run."""
        lengths = self.lengths

        def mask_of(index: int) -> SlotMask | None:
            return self.inputs.grown(self.bases[index], lengths.before[index])

        self.stored.prune(self.cache, [row.columns for row in self.rows], mask_of)
        for index, before in enumerate(lengths.before):
            lengths.cached[index] = [before + len(row) for row in self.rows]

    def _place_states(self, selections: list[list[Selection]], hidden: Tensor) -> None:
        """Overwrite the states of kept tokens that get others, and of merged ones."""
        for batch, (row, found) in enumerate(zip(self.rows, selections, strict=True)):
            for image, one in zip(row.images, found, strict=True):
                columns, kept = row.columns[image.places], len(one.keep)
                if one.states is not None:
                    hidden[batch, columns[:kept]] = one.states.to(hidden)
                if one.merged_states is not None:
                    hidden[batch, columns[kept:]] = one.merged_states.to(hidden)

    @property
    def tail(self) -> int:
        """Tokens behind the last visual one in the row that has fewest; none if padding follows."""
        if self.prompt.host is not None and not self.prompt.host[:, -1].all():
            return 0
        shown = [layout for layout in self.prompt.layouts if layout.images]
        return min(layout.length - layout.images[-1].stop for layout in shown)

    def finish(self) -> None:
        """Note in the cache what may be done with it from now on, and let go of what is done."""
        for row in self.rows:
            for image in row.images:
                image.notes.clear()
        if self.cache is None:
            return
        pruned = [layer for layer in self.cache.layers if isinstance(layer, PrunedLayer)]
        alike = len({layer.get_mask_sizes(0)[0] for layer in self.cache.layers}) == 1
        plain = alike and all(one.mask is None and not one.renumbered for one in pruned)
        if not plain:  # layers that were left whole refuse as well, before any has stored more
            whole = self._inputs(self.prompt.real)
            for index, layer in enumerate(self.cache.layers):
                if not isinstance(layer, PrunedLayer) and layer.is_initialized:
                    mask = whole.grown(self.bases[index], self.lengths.before[index])
                    pruned.append(pruned_layer(self.cache, index, mask))
        for layer in pruned:
            layer.needs_session = not plain
            if self.source is not None:  # what one layer refuses to lose, none may lose
                layer.tail = min(layer.tail, self.tail)

    def cache_lengths(self) -> list[list[int]]:
        """[layer][sample] tokens in the cache, the slots of earlier turns included."""
        return self.lengths.cached if self.cache_bytes() else []

    def cache_bytes(self) -> int:
        """Bytes that the whole cache takes."""
        if self.cache is None:
            return 0
        layers = [layer for layer in self.cache.layers if layer.is_initialized]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
