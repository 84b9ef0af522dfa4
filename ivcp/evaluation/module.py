"""The Lightning module that lets a model answer the questions of a batch and scores its answers."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from ivcp.core.errors import UnreachableBudgetError, UserError
from ivcp.core.family import BoxFrame, ModelFamily
from ivcp.core.metric import AnswerMetric
from ivcp.core.pruner import Pruner
from ivcp.core.resizing import encode_for
from ivcp.core.strip import joined_frames
from ivcp.core.types import Answer, Box, Sample
from ivcp.engine.attach import open_session
from ivcp.engine.session import Session
from ivcp.evaluation.data import Batch, unreadable_id
from ivcp.evaluation.gpus import own_gpus
from ivcp.evaluation.process import silence
from ivcp.evaluation.reach import reached
from ivcp.measure.devices import device_name, forget_peak, peak_memory
from ivcp.measure.flops import DecoderSizes, count_flops, prefill_flops
from ivcp.measure.timing import Phases, finite_logits, timed_phases
from ivcp.results.prediction import Prediction

FIRST = 8
"""Samples behind which a run ends if none of them could meet the budget."""
NOT_FINITE = (
    "the model's logits are not finite (NaN or infinity): its weights or dtype are at fault"
)


@dataclass(frozen=True)
class Generated:
    """Answers of a batch.

    Attributes:
        tokens: (B, N) answer tokens.
        session: What the pruner did.
        phases: How long it took.
        finite: Whether the logits of each sample were finite at all steps.
    """

    tokens: Tensor
    session: Session
    phases: Phases
    finite: list[bool]


class Evaluation(lightning.LightningModule):
    """Generates answers with a pruned model and measures what that costs.

    The first batch runs twice, and the second pass is recorded: the first one pays for lazy
    initialisation. Times of a sample are those of its batch divided by the batch's size, and so are
    the bytes of its cache, padding included.

    Each process loads the model itself, onto its own device, or over its own GPUs where the family
    has a `device_map`. The trainer does not know of the model and never moves it.

    Args:
        family: Loads the model, in evaluation mode, and its processor.
        pruner: The method.
        metric: Scores the answers.
        generation: Keyword arguments of `generate`.
        count: Whether the first process counts the operations of its first sample's prefill.
        seed: Of what is sampled; each batch begins anew, whoever evaluates it.
        adaptive: Whether a batch that does not fit into memory is halved; all later batches are
            then no larger than what fitted.
    """

    def __init__(
        self,
        family: ModelFamily,
        pruner: Pruner,
        metric: AnswerMetric,
        generation: dict[str, Any],
        count: bool = True,
        adaptive: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.family, self.pruner, self.generation = family, pruner, generation
        self.model: nn.Module  # from `setup` to `release`, like the next three
        self.processor: Any
        self.devices: set[torch.device]
        self.sizes: DecoderSizes
        self.warm, self.count, self.adaptive, self.seed = False, count, adaptive, seed
        self.most: int | None = None  # samples that fit into memory together, once that is known
        self.halvings = self.generated_tokens = self.samples = self.unreachable = 0
        self.generating_seconds = self.extra_seconds = 0.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arriving in a spawned process is the first chance to make that process quiet."""
        silence()
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def setup(self, stage: str) -> None:
        """Load the model in the process that uses it."""
        model, self.processor = self.family.load(own_gpus(self.trainer))
        if getattr(self.family, "device_map", None) is None:
            model.to(self.trainer.strategy.root_device)
        self.__dict__["model"] = model  # not registered
        self.devices = {parameter.device for parameter in model.parameters()}
        forget_peak(self.devices)
        self.sizes = DecoderSizes.of(self.family.decoder(model))

    def release(self) -> None:
        """Free the weights, whoever still holds the model, as the error of a failed run does."""
        if (model := self.__dict__.pop("model", None)) is not None:
            self.family.release(model)
            torch.cuda.empty_cache()

    def machine(self) -> dict[str, Any]:
        """Where the model is and how it computes, and the most memory that this took."""
        model: Any = self.model
        device = next(model.parameters()).device  # the module's own has gone to the CPU by now
        return {
            "peak_memory_bytes": peak_memory(self.devices),
            "device": device_name(device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "rotary": rotary_of(self.family.decoder(model)),
        }

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """Inputs go where the model is."""
        return batch.to(next(self.model.parameters()).device)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Predictions of a batch, in dataset order."""
        predictions = [
            Prediction(index=item.index, id=unreadable_id(item.index), score=0, failed=item.failed)
            if item.sample is None
            else Prediction.of(item.index, item.sample, score=0, failed=item.failed)
            for item in batch.failures
        ]
        if batch.encoded is not None:
            predictions += self._answer(batch)
        return sorted(predictions, key=lambda prediction: prediction.index)

    def _answer(self, batch: Batch) -> list[Prediction]:
        """Predictions of the samples that can be run, in as many parts as memory needs."""
        samples = len(batch.samples)
        if self.most is not None and samples > self.most:
            return [answer for part in self._parts(batch) for answer in self._answer(part)]
        counted = unreachable = None
        try:
            if not self.warm:
                started = time.perf_counter()
                self._generate(batch)
                if self.count and self.trainer.is_global_zero:
                    counted = self._count(batch)
                self.warm = True
                self.extra_seconds += time.perf_counter() - started
            generated = self._generate(batch)
        except torch.OutOfMemoryError as error:
            if samples == 1 or not self.adaptive:
                raise UserError(_too_large(batch)) from error
        except UnreachableBudgetError as error:
            unreachable = error
        else:
            self.generating_seconds += generated.phases.total
            predictions = self._describe(batch, generated)
            self.generated_tokens += sum(answer.generated_tokens for answer in predictions)
            self.samples += samples
            counted_for = {"prefill_flops_counted": counted}
            return [predictions[0].model_copy(update=counted_for), *predictions[1:]]
        if unreachable is not None:
            return self._without_budget(batch, unreachable)
        self.halvings += 1  # here, where the error holds no tensors any more
        self.most = samples // 2
        torch.cuda.empty_cache()
        return self._answer(batch)

    def _without_budget(self, batch: Batch, error: UnreachableBudgetError) -> list[Prediction]:
        """Answer each sample of a batch alone; one that cannot meet the budget fails.

        Raises:
            UnreachableBudgetError: None of the first samples can meet it.
        """
        if len(batch.samples) > 1:
            alone = [self._part(batch, slice(n, n + 1)) for n in range(len(batch.samples))]
            return [answer for part in alone for answer in self._answer(part)]
        self.unreachable += 1
        if not self.samples and self.unreachable >= FIRST:
            raise error
        (index,), (sample,) = batch.indices, batch.samples
        return [Prediction.of(index, sample, score=0, failed=str(error))]

    def _parts(self, batch: Batch) -> list[Batch]:
        """The batch in parts that fit."""
        size = self.most or 1
        starts = range(0, len(batch.samples), size)
        return [self._part(batch, slice(start, start + size)) for start in starts]

    def _part(self, batch: Batch, part: slice) -> Batch:
        """Some samples of a batch, encoded without the others."""
        samples = batch.samples[part]
        encoded = encode_for(self.pruner, self.family, self.processor, samples)
        device = next(self.model.parameters()).device
        return Batch(batch.indices[part], samples, encoded, ()).to(device)

    def _generate(self, batch: Batch, **options: Any) -> Generated:
        """Answers of a batch."""
        inputs = batch.ready.inputs
        torch.manual_seed(zlib.crc32(f"{self.seed}/{batch.indices[0]}".encode()))
        with open_session(self.model, self.family, self.pruner) as session:
            session.sample_ids = [sample.id for sample in batch.samples]
            session.questions = [sample.question for sample in batch.samples]
            vision, decoder = self.family.vision(self.model), self.family.decoder(self.model)
            with (
                timed_phases(self.model, vision, decoder) as phases,
                finite_logits(self.model, len(batch.samples)) as finite,
            ):
                output = self.model.generate(  # type: ignore[operator]
                    **inputs, **{**self.generation, **options}
                )
        tokens = output[:, inputs["input_ids"].shape[1] :]
        return Generated(tokens, session, phases, torch.stack(finite).all(0).tolist())

    def _count(self, batch: Batch) -> int:
        """Count the operations of the prefill of the batch's first sample."""
        alone = self._part(batch, slice(0, 1))

        def run() -> None:
            self._generate(alone, max_new_tokens=1)

        return count_flops(self.family.decoder(self.model), run)

    def _describe(self, batch: Batch, generated: Generated) -> list[Prediction]:
        """One prediction for each sample that was answered."""
        session, phases, tokens = generated.session, generated.phases, generated.tokens
        count, rows = len(batch.samples), len(session.layouts)
        stride = rows // count  # beams and returned sequences repeat a sample's row
        texts = self.family.decode(self.processor, tokens)[:: len(tokens) // count]
        lengths = self._lengths(tokens)[:: len(tokens) // count]
        overhead = session.overhead_seconds
        steps = tokens.shape[1] - 1
        saved = batch.ready.saved_tokens or [0] * count  # of prompts before images were resized
        longest = max(
            session.layouts[number * stride].length + saved[number] for number in range(count)
        )
        element_size = next(self.model.parameters()).element_size()
        milliseconds = 1000 / count  # of a sample, from seconds of the batch
        kept, reasons = session.kept, session.reasons
        kept_after = session.kept_after or [kept]
        resized = batch.ready.saved_tokens is not None
        predictions = []
        for number, sample in enumerate(batch.samples):
            row = number * stride
            layout = session.layouts[row]
            finite = generated.finite[number]
            parsed = self._read(texts[number], sample, batch.ready.box_frames[number])
            layer_tokens = tuple(of_layer[row] for of_layer in session.layer_tokens)
            first_pass = tuple(of_layer[row] for of_layer in session.first_pass_tokens)
            prompt_tokens = layout.length + saved[number]
            areas = zip(layout.images, batch.ready.visible_areas[number], strict=True)
            images = [image.on_original(visible) for image, visible in areas]
            if batch.ready.frames is not None:
                images = joined_frames(images, batch.ready.frames[number])
            remaining = [of_stage[row].tolist() for of_stage in kept_after]
            predictions.append(
                Prediction.of(
                    batch.indices[number],
                    sample,
                    prompt=batch.ready.prompts[number],
                    prediction=texts[number],
                    parsed=parsed if finite else None,
                    score=self.metric.score(parsed, sample) if finite else 0,
                    failed=None if finite else NOT_FINITE,
                    image_size=sample.images[-1].size if sample.images else None,
                    prompt_tokens=prompt_tokens,
                    visual_tokens=sum(image.length for image in layout.images) + saved[number],
                    resized=resized,
                    kept_tokens=len(kept[row]),
                    generated_tokens=lengths[number],
                    images=tuple(images),
                    kept=tuple(kept[row].tolist()),
                    reasons=by_reason(kept[row].tolist(), reasons[row]),
                    **({} if resized else reached(sample, images, remaining)),
                    layer_tokens=layer_tokens,
                    first_pass_tokens=first_pass,
                    kv_cache_bytes=session.cache_bytes / count,
                    kv_cache_bytes_unpruned=self.sizes.cache_bytes(longest, element_size) * stride,
                    prefill_flops=prefill_flops(layer_tokens, self.sizes, first_pass),
                    prefill_flops_unpruned=prefill_flops(
                        [prompt_tokens] * self.sizes.layers, self.sizes
                    ),
                    vision_ms=phases.vision * milliseconds,
                    language_prefill_ms=(phases.decoder - overhead) * milliseconds,
                    pruning_overhead_ms=overhead * milliseconds,
                    time_to_first_token_ms=phases.first_token * milliseconds,
                    decode_ms_per_token=phases.decoding * milliseconds / steps if steps else None,
                )
            )
        return predictions

    def _read(self, text: str, sample: Sample, frame: BoxFrame) -> Answer | None:
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


def rotary_of(decoder: Any) -> dict[str, Any] | None:
    """Inverse frequencies and number of position axes of a decoder; None if it has none to show."""
    frequencies = getattr(getattr(decoder, "rotary_emb", None), "inv_freq", None)
    if frequencies is None:
        return None
    sections = "mrope_section" in (getattr(decoder.config, "rope_parameters", None) or {})
    return {"inverse_frequencies": frequencies.tolist(), "axes": 3 if sections else 1}


def by_reason(kept: list[int], reasons: list[str]) -> dict[str, tuple[int, ...]]:
    """The kept tokens under each reason."""
    return {
        name: tuple(token for token, reason in zip(kept, reasons, strict=True) if reason == name)
        for name in sorted(set(reasons))
    }


def _too_large(batch: Batch) -> str:
    """What to do about a batch that does not fit."""
    if len(batch.samples) == 1:
        return (
            f"Sample {batch.samples[0].id} alone does not fit into the device's memory; use fewer "
            "pixels or tiles (model.max_pixels, model.max_tiles), a smaller dtype, or "
            "model.device_map=auto."
        )
    return (
        f"A batch of {len(batch.samples)} samples does not fit into the device's memory; use "
        "batch_size=auto, or a smaller number."
    )
