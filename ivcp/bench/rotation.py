"""A model without a pruner and with each of several, on the same inputs, in rotated order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ivcp.bench.result import Counted, Counts, Times
from ivcp.core.errors import UserError
from ivcp.core.family import ModelAdapter
from ivcp.core.layout import PromptLayout
from ivcp.core.pruner import Pruner
from ivcp.engine.attach import open_session
from ivcp.engine.cache import cache_of
from ivcp.engine.session import Session
from ivcp.measure.devices import forget_peak, peak_memory
from ivcp.measure.flops import DecoderSizes, count_flops, prefill_flops
from ivcp.measure.synchronisations import counted_syncs
from ivcp.measure.timing import timed_phases

OUT_OF_MEMORY = "out of memory"
UNPRUNED = 0
"""Number of the unpruned model; pruners count from 1."""
T = TypeVar("T")


@dataclass(frozen=True)
class CountedPrefill:
    """A prefill whose operations were counted.

    Attributes:
        flops: Operations of the decoder.
        cache_bytes: Bytes of the KV cache.
        layer_tokens: `[layer][sample]` tokens that each layer processed; empty without pruning.
        first_pass_tokens: The same of a first pass, by which tokens were chosen.
        kept: Visual tokens of a prompt that survive the last stage; 0 without pruning.
    """

    flops: int
    cache_bytes: int
    layer_tokens: list[list[int]]
    first_pass_tokens: list[list[int]]
    kept: int


class RotatedRuns:
    """Runs of the plain model and of the pruned ones, with answers of the same length.

    A pruner that runs out of memory, or that cannot serve the prompt, leaves the rotation;
    `failures` has its number and the reason. Unpruned runs have no session, so that the cost of
    the hooks is part of what is compared.

    Args:
        model: An unmodified Hugging Face model.
        family: How to look inside it.
        pruners: The methods.
        inputs: Keyword arguments of `generate`, on the model's device.
        pruned_inputs: For each pruner those of its own runs, for one that resizes images.
        new_tokens: Tokens that every answer has, at least 1.
        question: The user's question, for methods that read it.
    """

    def __init__(
        self,
        model: nn.Module,
        family: ModelAdapter,
        pruners: Sequence[Pruner],
        inputs: Mapping[str, Tensor],
        *,
        pruned_inputs: Sequence[Mapping[str, Tensor]] | None = None,
        new_tokens: int = 1,
        question: str | None = None,
    ) -> None:
        self.model, self.family = model, family
        self.pruners: list[Pruner | None] = [None, *pruners]
        self.inputs = [inputs, *(pruned_inputs or [inputs] * len(pruners))]
        self.new_tokens, self.question = new_tokens, question
        self.batch_size = len(inputs["input_ids"])
        self.devices = {parameter.device for parameter in model.parameters()}
        self.on_gpu = any(device.type == "cuda" for device in self.devices)
        self.failures: dict[int, str] = {}

    def repeats(self, repeats: int, warmup: int = 1) -> Iterator[list[Times | None]]:
        """Run all once in each repeat; each repeat begins with the next one.

        Args:
            repeats: Repeats to measure.
            warmup: Repeats before them, which pay for lazy initialisation.

        Yields:
            The times of the unpruned model and of each pruner; None for those that failed.
        """
        count = len(self.pruners)
        self.prefills  # noqa: B018 (counted before anything is timed)
        for repeat in range(-warmup, repeats):
            times: list[Times | None] = [None] * count
            for turn in range(count):
                number = (turn + repeat) % count
                times[number] = self.attempt(number, lambda n=number, t=turn: self._time(n, t))  # type: ignore[misc]
            if repeat >= 0:
                yield times

    def attempt(self, number: int, call: Callable[[], T]) -> T | None:
        """The result of a call; None where it has failed, now or before.

        Args:
            number: Whose call it is: `UNPRUNED`, or a pruner's number.
            call: What to do.
        """
        if number in self.failures:
            return None
        try:
            return call()
        except (torch.OutOfMemoryError, MemoryError):
            self.failures[number] = OUT_OF_MEMORY
        except UserError as error:
            if number == UNPRUNED:
                raise
            self.failures[number] = str(error)
        gc.collect()  # the traceback held tensors until its block ended
        if self.on_gpu:
            torch.cuda.empty_cache()
        return None

    @cached_property
    def prefills(self) -> list[CountedPrefill | None]:
        """A counted prefill of the unpruned model and of each pruner; None for those that failed.

        It comes before everything else, since it finds out who fails.
        """
        return [self.attempt(n, lambda n=n: self._count(n)) for n in range(len(self.pruners))]  # type: ignore[misc]

    def counts(self, number: int) -> Counts | None:
        """Tokens, operations and bytes of a pruner's prefill, against unpruned; None if it failed.

        Where the unpruned model does not fit into memory, its numbers come from formulas.
        """
        plain, pruned = self.prefills[UNPRUNED], self.prefills[number]
        if pruned is None:
            return None
        decoder: Any = self.family.decoder(self.model)
        sizes, element = DecoderSizes.of(decoder), next(decoder.parameters()).element_size()
        prompt = self.inputs[UNPRUNED]["input_ids"].shape[1]  # copies of a prompt have no padding
        layout, layers = self.layout(number), [tokens[0] for tokens in pruned.layer_tokens]
        text = layout.length - sum(image.length for image in layout.images)
        visual = prompt - text
        stored = self.batch_size * sizes.cache_bytes(prompt, element)
        formula = self.batch_size * prefill_flops([prompt] * sizes.layers, sizes)
        first_pass = [
            [of_layer[row] for of_layer in pruned.first_pass_tokens]
            for row in range(self.batch_size)
        ]
        formula_pruned = sum(
            prefill_flops(sample, sizes, before)
            for sample, before in zip(
                zip(*pruned.layer_tokens, strict=True), first_pass, strict=True
            )
        )
        processed = sum(layers) + sum(tokens - text for tokens in first_pass[0])
        return Counts(
            visual_tokens=Counted.of(visual, pruned.kept),
            layer_average_tokens=Counted.of(visual, processed / len(layers) - text),
            prompt_tokens=Counted.of(prompt, layers[-1]),
            kv_cache_bytes=Counted.of(plain.cache_bytes if plain else stored, pruned.cache_bytes),
            prefill_flops_counted=Counted.of(plain.flops if plain else None, pruned.flops),
            prefill_flops_formula=Counted.of(formula, formula_pruned),
        )

    def synchronisations(self, number: int) -> int | None:
        """Host-device synchronisations inside the decoder layers in prefill; None if it failed."""

        def run() -> int:
            layers: Any = self.family.decoder(self.model).layers
            with counted_syncs(layers) as messages, self._session(number):
                self._generate(number, max_new_tokens=1)
            return len(messages)

        return self.attempt(number, run)

    @cached_property
    def _visual_ids(self) -> list[int]:
        """Token ids of the prompt's visual tokens.

        A model that goes on behind the end of its answer may write them, and a forward pass would
        take them for an image.
        """
        row = self._row(UNPRUNED)
        images = self.layout(UNPRUNED).images
        return sorted({int(i) for image in images for i in row[image.tokens].tolist()})

    def layout(self, number: int) -> PromptLayout:
        """Layout of the prompt of the unpruned model or of a pruner."""
        inputs = self.inputs[number]
        small = self.family.layout_inputs(self.model, inputs)
        small = {name: value.cpu() for name, value in small.items()}
        rows = [self._row(number)] * self.batch_size
        return self.family.layouts(self.model, rows, None, {**inputs, **small})[0]

    def _row(self, number: int) -> Tensor:
        """(S,) token ids of a prompt on the CPU."""
        inputs = self.inputs[number]
        row: Tensor = inputs["input_ids"][0][inputs["attention_mask"][0].bool()].cpu()
        return row

    def _count(self, number: int) -> CountedPrefill:
        """Count one prefill."""
        outputs: list[Any] = []

        def run() -> None:
            outputs.append(self._generate(number, max_new_tokens=1, return_dict_in_generate=True))

        with self._session(number) as session:
            flops = count_flops(self.family.decoder(self.model), run)
        layers = cache_of(outputs[0]).layers
        stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
        if session is None:
            return CountedPrefill(flops, stored, [], [], 0)
        kept = len(session.kept[0])
        return CountedPrefill(flops, stored, session.layer_tokens, session.first_pass_tokens, kept)

    def _time(self, number: int, turn: int) -> Times:
        """Time one call of `generate`."""
        fixed = {"min_new_tokens": self.new_tokens, "max_new_tokens": self.new_tokens}
        suppressed = self._visual_ids
        forget_peak(self.devices)
        vision, decoder = self.family.vision(self.model), self.family.decoder(self.model)
        with ExitStack() as stack:
            session = stack.enter_context(self._session(number))
            phases = stack.enter_context(timed_phases(self.model, vision, decoder))
            self._generate(number, **fixed, suppress_tokens=suppressed)
        overhead = 0.0 if session is None else session.overhead_seconds
        steps = self.new_tokens - 1
        return Times(
            turn=turn,
            vision_ms=1000 * phases.vision,
            prefill_ms=1000 * phases.decoder,
            pruning_overhead_ms=1000 * overhead,
            time_to_first_token_ms=1000 * phases.first_token,
            decode_ms_per_token=1000 * phases.decoding / steps if steps else None,
            total_ms=1000 * phases.total,
            peak_memory_bytes=peak_memory(self.devices) if self.on_gpu else None,
        )

    @contextmanager
    def _session(self, number: int) -> Iterator[Session | None]:
        """A session of a pruner; none for the unpruned model."""
        pruner = self.pruners[number]
        if pruner is None:
            yield None
            return
        with open_session(self.model, self.family, pruner) as session:
            session.questions = None if self.question is None else [self.question]
            yield session

    def _generate(self, number: int, **options: Any) -> Any:
        """One greedy call of `generate`."""
        with torch.inference_mode():
            return self.model.generate(  # type: ignore[operator]
                **self.inputs[number], do_sample=False, **options
            )
