"""A model with and without a pruner, on the same inputs, in pairs of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.bench.result import Counted, Counts, Pair, Times
from ivcp.core.family import ModelAdapter
from ivcp.core.pruner import Pruner
from ivcp.engine.attach import open_session
from ivcp.engine.cache import cache_of
from ivcp.engine.session import Session
from ivcp.measure.devices import forget_peak, peak_memory
from ivcp.measure.flops import DecoderSizes, count_flops, prefill_flops
from ivcp.measure.timing import timed_phases


@dataclass(frozen=True)
class CountedPrefill:
    """A prefill whose operations were counted.

    Attributes:
        flops: Operations of the decoder.
        cache_bytes: Bytes of the KV cache.
        session: What the pruner did; None without pruning.
    """

    flops: int
    cache_bytes: int
    session: Session | None


class PairedRuns:
    """Runs of the plain model and of the pruned one, with answers of the same length.

    The unpruned runs have no session, so that the cost of the hooks is part of what is compared.

    Args:
        model: An unmodified Hugging Face model.
        family: How to look inside it.
        pruner: The method.
        inputs: Keyword arguments of `generate`, on the model's device.
        pruned_inputs: Those of the pruned runs, if the pruner resizes images; None for the same.
        new_tokens: Tokens that every answer has, at least 1.
        question: The user's question, for methods that read it.
    """

    def __init__(
        self,
        model: nn.Module,
        family: ModelAdapter,
        pruner: Pruner,
        inputs: Mapping[str, Tensor],
        *,
        pruned_inputs: Mapping[str, Tensor] | None = None,
        new_tokens: int = 1,
        question: str | None = None,
    ) -> None:
        self.model, self.family, self.pruner = model, family, pruner
        self.inputs, self.new_tokens, self.question = inputs, new_tokens, question
        self.pruned_inputs = inputs if pruned_inputs is None else pruned_inputs
        self.batch_size = len(inputs["input_ids"])
        self.devices = {parameter.device for parameter in model.parameters()}
        self.on_gpu = any(device.type == "cuda" for device in self.devices)

    def pairs(self, repeats: int, warmup: int = 1) -> Iterator[Pair]:
        """Measure pair by pair; the order inside a pair alternates.

        Args:
            repeats: Pairs to measure.
            warmup: Pairs before them, which pay for lazy initialisation.
        """
        for number in range(-warmup, repeats):
            pruned_first = number % 2 == 1
            times = {pruned: self._time(pruned) for pruned in (pruned_first, not pruned_first)}
            if number >= 0:
                yield Pair(pruned_first=pruned_first, unpruned=times[False], pruned=times[True])

    @cached_property
    def counts(self) -> Counts:
        """Tokens, operations and bytes of a prefill."""
        plain, pruned = self.prefills
        session = self._pruned_session
        layout, sizes = session.layouts[0], DecoderSizes.of(self.family.decoder(self.model))
        shown = sum(image.length for image in layout.images)
        prompt = self.inputs["input_ids"].shape[1]  # copies of one prompt have no padding
        layers = [tokens[0] for tokens in session.layer_tokens]
        text = layout.length - shown
        visual = prompt - text
        formula = self.batch_size * prefill_flops([prompt] * sizes.layers, sizes)
        formula_pruned = sum(
            prefill_flops(sample, sizes) for sample in zip(*session.layer_tokens, strict=True)
        )
        return Counts(
            visual_tokens=Counted.of(visual, len(session.kept[0])),
            layer_average_tokens=Counted.of(visual, sum(layers) / len(layers) - text),
            prompt_tokens=Counted.of(prompt, layers[-1]),
            kv_cache_bytes=Counted.of(plain.cache_bytes, pruned.cache_bytes),
            prefill_flops_counted=Counted.of(plain.flops, pruned.flops),
            prefill_flops_formula=Counted.of(formula, formula_pruned),
        )

    @cached_property
    def prefills(self) -> tuple[CountedPrefill, CountedPrefill]:
        """One prefill without pruning and one with."""
        return self._count(pruned=False), self._count(pruned=True)

    @property
    def _pruned_session(self) -> Session:
        """What the pruner did in the counted prefill."""
        session = self.prefills[1].session
        if session is None:
            raise RuntimeError("the pruned prefill had no session")
        return session

    @cached_property
    def _visual_ids(self) -> list[int]:
        """Token ids of the prompt's visual tokens.

        A model that goes on behind the end of its answer may write them, and a forward pass would
        take them for an image.
        """
        row = self.pruned_inputs["input_ids"][0].cpu()
        layout = self._pruned_session.layouts[0]
        prompt = row[len(row) - layout.length :]  # rows are padded on the left
        return sorted({int(i) for image in layout.images for i in prompt[image.tokens].tolist()})

    def _count(self, pruned: bool) -> CountedPrefill:
        """Count one prefill."""
        outputs: list[Any] = []

        def run() -> None:
            outputs.append(
                self._generate(pruned=pruned, max_new_tokens=1, return_dict_in_generate=True)
            )

        with self._session(pruned) as session:
            flops = count_flops(self.family.decoder(self.model), run)
        layers = cache_of(outputs[0]).layers
        stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
        return CountedPrefill(flops, stored, session)

    def _time(self, pruned: bool) -> Times:
        """Time one call of `generate`."""
        fixed = {"min_new_tokens": self.new_tokens, "max_new_tokens": self.new_tokens}
        suppressed = self._visual_ids
        forget_peak(self.devices)
        vision, decoder = self.family.vision(self.model), self.family.decoder(self.model)
        with self._session(pruned) as session, timed_phases(self.model, vision, decoder) as phases:
            self._generate(pruned=pruned, **fixed, suppress_tokens=suppressed)
        overhead = 0.0 if session is None else session.overhead_seconds
        steps = self.new_tokens - 1
        return Times(
            vision_ms=1000 * phases.vision,
            language_prefill_ms=1000 * (phases.decoder - overhead),
            pruning_overhead_ms=1000 * overhead,
            time_to_first_token_ms=1000 * phases.first_token,
            decode_ms_per_token=1000 * phases.decoding / steps if steps else None,
            total_ms=1000 * phases.total,
            peak_memory_bytes=peak_memory(self.devices) if self.on_gpu else None,
        )

    @contextmanager
    def _session(self, pruned: bool) -> Iterator[Session | None]:
        """A session of the pruner, or none."""
        if not pruned:
            yield None
            return
        with open_session(self.model, self.family, self.pruner) as session:
            session.questions = None if self.question is None else [self.question]
            yield session

    def _generate(self, *, pruned: bool, **options: Any) -> Any:
        """One greedy call of `generate`."""
        with torch.inference_mode():
            inputs = self.pruned_inputs if pruned else self.inputs
            return self.model.generate(  # type: ignore[operator]
                **inputs, do_sample=False, **options
            )
