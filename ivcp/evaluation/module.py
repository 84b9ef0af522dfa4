"""The Lightning module that asks a model the questions of a batch and judges its answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import lightning
from torch import Tensor, nn

from ivcp.core.family import Frame, ModelFamily
from ivcp.core.metric import AnswerMetric
from ivcp.core.pruner import Pruner
from ivcp.core.types import Answer, Box, Sample
from ivcp.engine.session import Session, open_session
from ivcp.evaluation.data import Batch
from ivcp.evaluation.flops import DecoderSizes, count_flops, prefill_flops
from ivcp.evaluation.noise import silence
from ivcp.evaluation.phases import Phases, timed_phases
from ivcp.evaluation.records import Record, on_original
from ivcp.evaluation.verdict import judge_locally


@dataclass(frozen=True)
class Counted:
    """Prefill operations of one sample, counted and by formula.

    Attributes:
        id: The sample.
        counted: As PyTorch dispatched them.
        formula: As `prefill_flops` says.
    """

    id: str
    counted: int
    formula: int


class Evaluation(lightning.LightningModule):
    """Generates answers with a pruned model and measures what that costs.

    The first batch runs twice, and the second pass is recorded: the first one pays for lazy
    initialisation. Times of a sample are those of its batch divided by the batch's size, and so are
    the bytes of its cache, padding included.

    Args:
        model: A Hugging Face model in evaluation mode. Where `device_map` has placed it, the
            trainer leaves it alone.
        processor: What the family's `load` gave with it.
        family: The model's family.
        pruner: The method.
        metric: Judges the answers; its values so far are `metric.compute()`.
        generation: Keyword arguments of `generate`.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        family: ModelFamily,
        pruner: Pruner,
        metric: AnswerMetric,
        generation: dict[str, Any],
    ) -> None:
        super().__init__()
        if getattr(model, "hf_device_map", None):
            self.__dict__["model"] = model  # not registered, so never moved
        else:
            self.model = model
        self.metric = judge_locally(metric)
        self.processor, self.family, self.pruner = processor, family, pruner
        self.generation = generation
        self.sizes = DecoderSizes.of(family.decoder(model))
        self.counted: Counted | None = None
        self.generating_seconds = self.extra_seconds = 0.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arriving in a spawned process is the first chance to make that process quiet."""
        silence()
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Inputs go where the model is."""
        return batch.to(next(self.model.parameters()).device)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Record]:
        """Records of a batch, in dataset order."""
        records = [
            Record(index=item.index, id=f"index-{item.index}", failed=item.failed)
            if item.sample is None
            else Record.of(item.index, item.sample, failed=item.failed)
            for item in batch.failures
        ]
        if batch.encoded is not None:
            if self.counted is None:
                started = time.perf_counter()
                self._generate(batch)
                self.counted = self._count(batch)
                self.extra_seconds += time.perf_counter() - started
            tokens, session, phases = self._generate(batch)
            self.generating_seconds += phases.total
            records += self._describe(batch, tokens, session, phases)
        records.sort(key=lambda record: record.index)
        self.metric.update([record.verdict() for record in records])
        return records

    def _generate(self, batch: Batch, **options: Any) -> tuple[Tensor, Session, Phases]:
        """(B, N) answer tokens, what the pruner did, and how long it took."""
        inputs = batch.ready.inputs
        with open_session(self.model, self.family, self.pruner) as session:
            session.sample_ids = [sample.id for sample in batch.samples]
            vision, decoder = self.family.vision(self.model), self.family.decoder(self.model)
            with timed_phases(self.model, vision, decoder) as phases:
                output = self.model.generate(  # type: ignore[operator]
                    **inputs, **{**self.generation, **options}
                )
        return output[:, inputs["input_ids"].shape[1] :], session, phases

    def _count(self, batch: Batch) -> Counted:
        """Count the operations of the prefill of the batch's first sample."""
        sample = batch.samples[0]
        encoded = self.family.encode(self.processor, [sample])
        device = next(self.model.parameters()).device
        alone = Batch(batch.indices[:1], (sample,), encoded, ()).to(device)
        sessions: list[Session] = []

        def run() -> None:
            sessions.append(self._generate(alone, max_new_tokens=1)[1])

        counted = count_flops(self.family.decoder(self.model), run)
        layer_tokens = [tokens[0] for tokens in sessions[0].layer_tokens]
        return Counted(sample.id, counted, prefill_flops(layer_tokens, self.sizes))

    def _describe(
        self, batch: Batch, tokens: Tensor, session: Session, phases: Phases
    ) -> list[Record]:
        """One record for each sample that was answered."""
        count, rows = len(batch.samples), len(session.layouts)
        stride = rows // count  # beams and returned sequences repeat a sample's row
        texts = self.family.decode(self.processor, tokens)[:: len(tokens) // count]
        lengths = self._lengths(tokens)[:: len(tokens) // count]
        selector = session.selector_seconds
        steps = tokens.shape[1] - 1
        longest = max(layout.length for layout in session.layouts)
        element_size = next(self.model.parameters()).element_size()
        share = 1000 / count  # from seconds of the batch to milliseconds of a sample
        kept, roles = session.kept, session.roles
        records = []
        for number, sample in enumerate(batch.samples):
            row = number * stride
            layout = session.layouts[row]
            parsed = self._read(texts[number], sample, batch.ready.frames[number])
            layer_tokens = tuple(of_layer[row] for of_layer in session.layer_tokens)
            records.append(
                Record.of(
                    batch.indices[number],
                    sample,
                    prompt=batch.ready.prompts[number],
                    prediction=texts[number],
                    parsed=parsed,
                    score=self.metric.score(parsed, sample),
                    image_size=sample.images[-1].size if sample.images else None,
                    prompt_tokens=layout.length,
                    visual_tokens=sum(image.length for image in layout.images),
                    kept_tokens=len(kept[row]),
                    generated_tokens=lengths[number],
                    images=tuple(
                        on_original(image, shown)
                        for image, shown in zip(
                            layout.images, batch.ready.shown[number], strict=True
                        )
                    ),
                    kept=tuple(kept[row].tolist()),
                    roles=tuple(roles[row].tolist()),
                    layer_tokens=layer_tokens,
                    kv_cache_bytes=session.cache_bytes / count,
                    kv_cache_bytes_unpruned=self.sizes.cache_bytes(longest, element_size) * stride,
                    prefill_flops=prefill_flops(layer_tokens, self.sizes),
                    prefill_flops_unpruned=prefill_flops(
                        [layout.length] * self.sizes.layers, self.sizes
                    ),
                    vision_ms=phases.vision * share,
                    language_prefill_ms=(phases.decoder - selector) * share,
                    selector_ms=selector * share,
                    time_to_first_token_ms=phases.first_token * share,
                    decode_ms_per_token=phases.decoding * share / steps if steps else None,
                )
            )
        return records

    def _read(self, text: str, sample: Sample, frame: Frame) -> Answer | None:
        """What the metric reads from a text, boxes in pixels of the original image."""

        def to_box(text: str) -> Box | None:
            box = self.family.parse_box(text)
            return None if box is None else frame.to_pixels(box)

        return self.metric.read(text, sample, to_box)

    def _lengths(self, tokens: Tensor) -> list[int]:
        """Answer tokens of each row up to the closing one."""
        config: Any = self.model.generation_config
        closing = config.eos_token_id
        ends = set(closing if isinstance(closing, list) else [closing])
        return [
            next((n for n, token in enumerate(row, start=1) if token in ends), len(row))
            for row in tokens.tolist()
        ]
