"""One forward pass in which visual tokens enter: it selects tokens and prunes the others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ivcp.core.layer_kinds import LayerKind
from ivcp.core.selection import Selection
from ivcp.core.transfer import to_device
from ivcp.core.view import LAYER_SIGNALS
from ivcp.engine.alike import select_batch
from ivcp.engine.cache import PrunedLayer, SlotMask, cache_of, pruned_layer, stored_slots
from ivcp.engine.checks import check_selections
from ivcp.engine.context import SessionContext
from ivcp.engine.deepstack import DeepStack
from ivcp.engine.first_pass import UnchangedCache, run_first_pass
from ivcp.engine.image_view import ImageView, StageState
from ivcp.engine.kept_batch import KeptBatch, apply_selections
from ivcp.engine.layer_inputs import LayerInputs
from ivcp.engine.layer_signals import LayerSignals, rotary_rows, take_columns
from ivcp.engine.linear_state import (
    check_padding,
    check_states,
    expect,
    is_linear,
    pruned_state,
    state_bytes,
    with_slots,
)
from ivcp.engine.masks import attention_mask
from ivcp.engine.prompt import Prompt, model_positions, prompt_positions
from ivcp.engine.renumbering import check_renumbering, new_positions
from ivcp.engine.sample_tokens import KEPT, MERGED, all_tokens
from ivcp.engine.sliding import check_window
from ivcp.engine.stopwatch import Stopwatch
from ivcp.engine.stored_tokens import StoredTokens
from ivcp.engine.token_counts import TokenCounts


@dataclass
class LayerRun:
    """A decoder layer that is about to run, or has just run.

    Attributes:
        layer: The layer.
        entering: (B, P, C) its input.
        rotary: Its position embeddings.
        states: Keys and values of all slots, if it ran in a first pass, which stores nothing.
    """

    layer: nn.Module
    entering: Tensor
    rotary: Any
    states: tuple[Tensor, Tensor] | None = None


class Prefill:
    """State of one prefill; it begins when the language model is called.

    Args:
        context: What all forward passes of the session have in common.
        prompt: What enters.
        backend: Attention backend, on which the form of masks depends.
        embeds: (B, S, C) input of layer 0.
        positions: The language model's position ids, or None if it counts by itself.
        cache: The cache, or None.
        deepstack: Features that are added behind early layers, if any.
    """

    def __init__(
        self,
        context: SessionContext,
        prompt: Prompt,
        backend: str,
        embeds: Tensor,
        positions: Tensor | None,
        cache: Cache | None,
        deepstack: DeepStack | None,
    ) -> None:
        width, device = embeds.shape[1], embeds.device
        self.context, self.prompt, self.backend = context, prompt, backend
        self.cache, self.width, self.deepstack = cache, width, deepstack
        self.stages = {stage.layer: n for n, stage in enumerate(context.pruner.stages())}
        self.clock, self.counts, self.stored = Stopwatch(), TokenCounts(), StoredTokens()
        self.reasons = [KEPT, MERGED]
        self.kept_after: list[list[list[tuple[Tensor, Tensor]]]] = []  # [stage][sample][image]
        self.source: Tensor | None = None  # (B, P) columns of the remaining tokens in layer 0
        check_states(cache, context.kinds)
        check_window(context, backend, cache, width)
        # a linear layer's state cannot leave out the padding between two turns
        self.continues_state = (
            "linear" in context.kinds and cache is not None and bool(cache.get_seq_length())
        )
        self.last_run: LayerRun | None = None
        real = prompt.real
        check_padding(self.continues_state, real is not None)
        host_mask = None
        if real is not None and prompt.host_mask is not None:
            host_mask = prompt.host_mask[:, -width:]
        self.samples = all_tokens(prompt.layouts, host_mask, width, device)
        self.past = None if prompt.past is None else SlotMask(prompt.past)
        self.earlier_masks: list[SlotMask | None] = []  # of each layer's cache, before it ran
        self.remaining_rotary: dict[LayerKind, Any] = {}
        self.inputs = self._inputs(real)
        needs = frozenset().union(*(stage.needs for stage in context.pruner.stages()))
        self.embeddings = embeds if needs & {"embeddings", "text_embeddings"} else None
        self.positions = prompt_positions(positions, prompt, cache, embeds)
        check_renumbering(context.pruner.renumbers(), cache)
        self.entering_positions = model_positions(positions, cache, embeds)
        self.inverse_frequencies = to_device(context.inverse_frequencies, device)

    def _inputs(self, real: Tensor | None) -> LayerInputs:
        blocks = self._blocks() if self.context.adapter.bidirectional else None
        return LayerInputs(self.context, self.backend, real, self.past, blocks)

    def _blocks(self) -> Tensor:
        """(B, N) number of the image of each current column, -1 for text and padding."""
        width = self.width if self.source is None else self.source.shape[1]
        device = self.samples[0].columns.device
        blocks = torch.full((len(self.samples), width), -1, device=device)
        for row, sample in enumerate(self.samples):
            for number, image in enumerate(sample.images):
                blocks[row, sample.columns[image.ranks]] = number
        return blocks

    def before_layer(
        self, index: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states and keyword arguments for the layer.

        The order matters: DeepStack adds to the output of the layer before, which the stage then
        prunes; only then is it known how many tokens enter, for which masks and rotary are made.
        """
        if index == 0:  # the language model may have made a cache by itself
            self.cache = cache_of(kwargs)
        if index and self.deepstack is not None:
            hidden = self.deepstack.added(index - 1, hidden, self.source)
        if (number := self.stages.get(index)) is not None:
            if first_pass := self.context.pruner.stages()[number].first_pass:
                self._run_first_pass(first_pass, hidden, kwargs)
            with self.clock.running(hidden.device):
                hidden = self._stage(number, LayerRun(layer, hidden, kwargs["position_embeddings"]))
            if number + 1 == len(self.stages):  # no later stage reads these
                self.embeddings = None
                self.prompt.encoder_calls.clear()
        self.earlier_masks.append(self._earlier_mask(index))
        self.counts.add_layer(self.samples, stored_slots(self.cache, index))
        kwargs = {**kwargs, **self._changed(index, hidden, kwargs["position_embeddings"])}
        self.last_run = None
        if index + 1 in self.stages:  # a view reads only the layer right before a stage
            self.last_run = LayerRun(layer, hidden, kwargs["position_embeddings"])
        return hidden, kwargs

    def _changed(self, index: int, hidden: Tensor, rotary: Any) -> dict[str, Any]:
        """Keyword arguments to change, as tokens were dropped from the input or from the cache."""
        if self.context.kinds[index] == "linear":
            if self.cache is not None:
                expect(self.cache.layers[index])
            return {} if self.source is None else self.inputs.of_linear(hidden)
        if self.source is None and self._pruned_cache(index) is None:
            return {}
        changed = {"position_embeddings": self._rotary(index, hidden, rotary)}
        if self.cache is None:
            return changed | self.inputs.without_cache(hidden)
        renumbered = self.source is not None and self.context.pruner.renumbers() is True
        layer = pruned_layer(self.cache, index, self.past)
        changed |= self.inputs.with_cache(self.cache, index, hidden)
        layer.renumbered |= renumbered
        layer.dropped += self.width - hidden.shape[1]
        return changed

    def _pruned_cache(self, index: int) -> PrunedLayer | None:
        """The layer's cache, if a forward pass has pruned it."""
        if self.cache is None or index >= len(self.cache.layers):
            return None
        layer = self.cache.layers[index]
        return layer if isinstance(layer, PrunedLayer) else None

    def _earlier_mask(self, index: int) -> SlotMask | None:
        """Which slots of earlier turns hold tokens in the cache of a layer that has not run."""
        pruned = self._pruned_cache(index)
        if pruned is not None:
            return pruned.mask
        return self.past if stored_slots(self.cache, index) else None

    def _rotary(self, index: int, hidden: Tensor, rotary: Any) -> Any:
        """Position embeddings of the tokens that enter a layer."""
        pruned, dropped = self._pruned_cache(index), self.source is not None
        if (dropped and self.context.pruner.renumbers() is True) or (pruned and pruned.renumbered):
            slots = stored_slots(self.cache, index)
            kind = self.context.kinds[index]
            return self.inputs.gapless(self._earlier_mask(index), slots, hidden, kind)
        return self._of_remaining(index, hidden, rotary) if dropped else rotary

    def _of_remaining(self, index: int, hidden: Tensor, rotary: Any) -> Any:
        """Position embeddings of the remaining tokens, mostly in their original positions."""
        kind = self.context.kinds[index]
        renumbering = self.context.pruner.renumbers()
        if kind not in self.remaining_rotary and isinstance(renumbering, str):
            make_ids, width = self.prompt.make_ids, hidden.shape[1]
            ids = new_positions(renumbering, self.entering_positions, self.samples, make_ids, width)
            adapter, decoder = self.context.adapter, self.context.decoder
            self.remaining_rotary[kind] = adapter.rotary(
                decoder, hidden, ids if len(ids) > 1 else ids[0], kind
            )
        elif kind not in self.remaining_rotary and (source := self.source) is not None:
            choose = partial(take_columns, columns=source)
            self.remaining_rotary[kind] = rotary_rows(rotary, choose)
        return self.remaining_rotary[kind]

    def _run_first_pass(self, count: int, embeds: Tensor, kwargs: dict[str, Any]) -> None:
        """Run the first layers on all tokens; the last of them becomes the `last_run`."""
        cache, arguments, kinds = UnchangedCache(self.cache), [], self.context.kinds
        name = "cache" if "cache" in kwargs else "past_key_values"
        for index in range(count):
            rotary = kwargs["position_embeddings"]
            if kinds[index] != kinds[0] and "sliding" in kinds:  # which have angles of their own
                decoder, ids = self.context.decoder, kwargs["position_ids"]
                rotary = self.context.adapter.rotary(decoder, embeds, ids, kinds[index])
            rotary = self._rotary(index, embeds, rotary)
            changed = {name: cache, "position_embeddings": rotary}
            if kinds[index] == "linear":
                if self.cache is not None:
                    expect(self.cache.layers[index])
                changed |= self.inputs.of_linear(embeds)
            # the library's own mask is for the kind of layer 0, and for tokens that are all there
            elif self._pruned_cache(index) is not None or kinds[index] != kinds[0]:
                stored = stored_slots(self.cache, index)
                grown = self.inputs.grown(self._earlier_mask(index), stored)
                real = None if grown is None else grown.real
                changed["position_ids"] = None
                changed["attention_mask"] = attention_mask(
                    self.backend, self.width, real, stored + self.width, embeds, self.inputs.blocks
                )
            arguments.append({**kwargs, **changed})
        layers: list[nn.Module] = list(self.context.decoder.layers)[:count]  # type: ignore[arg-type]
        entering = run_first_pass(layers, embeds, arguments, self.deepstack)
        rotary = arguments[-1]["position_embeddings"]
        self.last_run = LayerRun(layers[-1], entering, rotary, cache.states)
        self.counts.add_first_pass(self.samples, count)

    def _stage(self, number: int, run: LayerRun) -> Tensor:
        """Select and drop tokens before a layer; returns the layer's input."""
        hidden, pruner = run.entering, self.context.pruner
        stage = pruner.stages()[number]
        for sample in self.samples:  # layers may be spread over several devices
            sample.to(hidden.device)
        state = self._state(number, run)
        views = [
            [
                ImageView(state, row, sample, image, self.prompt.make_ids[row])
                for image in sample.images
            ]
            for row, sample in enumerate(self.samples)
        ]
        selections = []
        for sample, answer in zip(self.samples, select_batch(pruner, views, number), strict=True):
            counts = [len(image.index) for image in sample.images]
            selections.append(check_selections(answer, counts, hidden, pruner.name))
        lengths = [len(sample) for sample in self.samples]
        kept = apply_selections(self.samples, selections, self.reasons)
        self.kept_after.append([sample.remaining_visual() for sample in self.samples])
        columns = [sample.columns for sample in self.samples]
        self.stored.close_group(stage.layer, columns, hidden.shape[1])
        new_states = any(
            selection.merged_states is not None or selection.states is not None
            for answer in selections
            for selection in answer
        )
        # shuffled positions are new ones, even if all tokens stay
        if new_states or kept.lengths != lengths or pruner.renumbers() == "shuffled":
            hidden = self._drop(kept, hidden, earlier=stage.prune_earlier_kv)
        if new_states:
            self._write_states(selections, hidden)
        return hidden

    def _state(self, number: int, run: LayerRun) -> StageState:
        """What the views of a stage read from."""
        context, device = self.context, run.entering.device
        stage = context.pruner.stages()[number]
        self.positions = self.positions.to(device)
        self.inverse_frequencies = self.inverse_frequencies.to(device)
        return StageState(
            pruner=context.pruner.name,
            layers=context.depth,
            flops=context.prefill_flops,
            positions=self.positions,
            inverse_frequencies=self.inverse_frequencies,
            embeddings=self.embeddings,
            encoder_calls=self.prompt.encoder_calls,
            questions=self.prompt.questions,
            text_encoder=context.text_encoder,
            stage=stage,
            hidden=run.entering,
            final_norm=partial(context.adapter.final_norm, context.decoder),
            signals=self._signals(number, run) if stage.needs & LAYER_SIGNALS else None,
        )

    def _signals(self, number: int, run: LayerRun) -> LayerSignals:
        """The signals of the layer before the stage, or of the layer behind it."""
        stage = self.context.pruner.stages()[number]
        if stage.signals_from == "next":
            index, mask = stage.layer, self._earlier_mask(stage.layer)
            rotary = self._rotary(index, run.entering, run.rotary)
            source = LayerRun(run.layer, run.entering, rotary)
            earlier = stored_slots(self.cache, index)
        else:
            if self.last_run is None:
                raise RuntimeError("no layer has run before this stage")
            source = self.last_run
            index = (stage.first_pass or stage.layer) - 1
            if stage.first_pass:
                mask, earlier = self._earlier_mask(index), stored_slots(self.cache, index)
            else:
                mask, earlier = self.earlier_masks[index], self.counts.earlier_slots[index]
        total = earlier + source.entering.shape[1]
        mask, real = self.inputs.grown(mask, earlier), None
        if mask is not None:
            real = torch.ones(len(mask.real), total, dtype=torch.bool, device=run.entering.device)
            real[:, : mask.real.shape[1]] = mask.real[:, :total]
        stored = source.states
        if stored is None and stored_slots(self.cache, index):
            layer = self.cache.layers[index]  # type: ignore[union-attr]
            stored = layer.keys, layer.values
        has_run = stored is not None and stored[0].shape[2] == total
        return LayerSignals(
            self.context.adapter, source.layer, source.entering, source.rotary, stored,
            has_run=has_run, real=real, device=run.entering.device,
        )  # fmt: skip

    def _drop(self, kept: KeptBatch, hidden: Tensor, *, earlier: bool) -> Tensor:
        """Drop all tokens of each sample but the kept ones.

        Args:
            kept: The tokens that are kept.
            hidden: (B, P, C) states that enter the stage's layer.
            earlier: Whether to prune the caches of the layers that have run, too.

        Returns:
            (B, P', C) states of the kept tokens, rows padded on the left.
        """
        slots = kept.padded(kept.of([sample.columns for sample in self.samples]))
        origin = kept.split(kept.of([sample.origin for sample in self.samples]))
        numbers = torch.arange(kept.width, device=hidden.device)
        for sample, indices in zip(self.samples, origin, strict=True):
            sample.origin = indices
            sample.columns = numbers[kept.width - len(indices) :]
        check_padding(self.continues_state, kept.real is not None)
        if self.source is None:  # the columns so far are those of layer 0
            self.source = slots
        else:
            self.source = self.source.to(slots.device).gather(1, slots)
        self.inputs, self.remaining_rotary = self._inputs(kept.real), {}
        self.stored.keep(kept)
        if earlier:
            self._prune_earlier(kept)
        if len(slots) == 1:
            return hidden.index_select(1, slots[0])
        return hidden.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))

    def _prune_earlier(self, kept: KeptBatch) -> None:
        """Remove dropped tokens from the caches of layers that have run."""

        def mask_of(index: int) -> SlotMask | None:
            earlier_slots = self.counts.earlier_slots[index]
            return self.inputs.grown(self.earlier_masks[index], earlier_slots)

        columns = [sample.columns for sample in self.samples]
        self.stored.prune(self.cache, kept, columns, mask_of)
        self.counts.prune_cache(self.samples)

    def _write_states(self, selections: list[list[Selection]], hidden: Tensor) -> None:
        """Write the new states of kept tokens, and the states of merged ones."""
        ranks, states, rows = [], [], []
        for row, (sample, answer) in enumerate(zip(self.samples, selections, strict=True)):
            for image, selection in zip(sample.images, answer, strict=True):
                kept = len(selection.keep)
                for where, new in (
                    (image.ranks[:kept], selection.states),
                    (image.ranks[kept:], selection.merged_states),
                ):
                    if new is not None:
                        ranks.append(where)
                        states.append(new.to(hidden))
                        rows.append((row, hidden.shape[1] - len(sample), len(where)))
        row, pads, counts = torch.tensor(rows).T
        first = to_device((row * hidden.shape[1] + pads).repeat_interleave(counts), hidden.device)
        hidden.flatten(0, 1)[first + torch.cat(ranks)] = torch.cat(states)

    @property
    def tail(self) -> int:
        """Fewest tokens behind a row's last visual token; 0 if rows are padded on the right."""
        if self.prompt.host_mask is not None and not self.prompt.host_mask[:, -1].all():
            return 0
        with_images = [layout for layout in self.prompt.layouts if layout.images]
        return min(layout.length - layout.images[-1].stop for layout in with_images)

    def finish(self) -> None:
        """Note in the cache how it may be used from now on, and free what stages have stored."""
        for sample in self.samples:
            for image in sample.images:
                image.notes.clear()
        if self.cache is None:
            return
        pruned = [layer for layer in self.cache.layers if isinstance(layer, PrunedLayer)]
        if not pruned:
            return
        states = [n for n, layer in enumerate(self.cache.layers) if is_linear(layer)]
        alike = len({layer.get_mask_sizes(0)[0] for layer in with_slots(self.cache)}) == 1
        plain = alike and all(layer.mask is None and not layer.renumbered for layer in pruned)
        if (padding := self.prompt.host_mask) is not None:
            # the library would take padding behind a prompt for slots that hold tokens
            plain &= bool((padding.int().diff(dim=1) >= 0).all())
        if not plain:
            # Outside a session the library must not use this cache. Layer 0 has to refuse it, even
            # if it was not pruned itself, or it would store tokens before a later layer refuses.
            inputs = self._inputs(self.prompt.real)
            for index, layer in enumerate(self.cache.layers):
                if stored_slots(self.cache, index) and not isinstance(layer, PrunedLayer):
                    earlier = self.counts.earlier_slots[index]
                    mask = inputs.grown(self.earlier_masks[index], earlier)
                    pruned.append(pruned_layer(self.cache, index, mask))
        for index in states:
            pruned_state(self.cache, index).needs_session = not plain
        for layer in pruned:
            layer.needs_session = not plain
            if self.source is not None:  # `crop` must refuse in all layers, or in none
                layer.tail = min(layer.tail, self.tail)

    def cache_lengths(self) -> list[list[int]]:
        """[layer][sample] tokens in the cache, those of earlier turns included; 0 if linear."""
        if not self.cache_bytes():
            return []
        return [
            [0] * len(counts) if kind == "linear" else counts
            for kind, counts in zip(self.context.kinds, self.counts.cached, strict=True)
        ]

    def cache_bytes(self) -> int:
        """Bytes of the complete cache, the states of linear layers included."""
        total = 0
        for index, layer in enumerate([] if self.cache is None else self.cache.layers):
            if is_linear(layer):
                total += state_bytes(layer)
            elif stored_slots(self.cache, index):
                total += layer.keys.nbytes + layer.values.nbytes
        return total
