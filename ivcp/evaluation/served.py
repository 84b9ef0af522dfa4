"""The Lightning module of runs that a server answers: `backend=vllm`."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ivcp.core.backend import Backend, ServedAnswer, ServedPrompt, Server
from ivcp.core.errors import UserError
from ivcp.core.layout import PromptLayout
from ivcp.core.types import Sample
from ivcp.engine.sample_tokens import KEPT
from ivcp.evaluation.data import Batch
from ivcp.evaluation.module import NOT_FINITE, Evaluation, by_reason
from ivcp.evaluation.reach import reached
from ivcp.measure.flops import DecoderSizes, prefill_flops
from ivcp.results.prediction import Prediction


class ServedEvaluation(Evaluation):
    """Hands batches to a server, as they are, and scores its answers.

    A server does not tell how long the parts of a prefill took, so these times are left out of the
    records; the others are a prompt's own, among all that the server has at work. Tokens leave
    before the first layer, so operations and bytes follow by formula.

    Args:
        backend: Starts the server.
        arguments: Those of `Evaluation`.
    """

    def __init__(self, backend: Backend, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.backend = backend
        self.server: Server | None = None

    def setup(self, stage: str) -> None:
        """Start the server."""
        family: Any = self.family
        self.processor = family.processor()
        decoder = self.family.decoder(family.skeleton())
        self.sizes = DecoderSizes.of(decoder)
        self.rotary = {
            "inverse_frequencies": self.family.inverse_frequencies(family.skeleton()).tolist(),
            "axes": self.family.position_axes(decoder),
        }
        self.server = self.backend.start(
            family, self.pruner, self.generation, self.seed, self.global_rank
        )
        self.about = self.server.about()
        self.element_size = getattr(torch, self.about["dtype"]).itemsize

    def teardown(self, stage: str) -> None:
        """Stop the server in the process that started it."""
        self.release()

    def release(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def machine(self) -> dict[str, Any]:
        return {"peak_memory_bytes": None, "rotary": self.rotary, **self.about}

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """The server takes images, and no inputs of a model."""
        return batch

    def _answer(self, batch: Batch) -> list[Prediction]:
        if self.server is None:
            raise RuntimeError("the server is not running")
        if any(sample.videos for sample in batch.samples):
            raise UserError(
                "A sample holds a video, and a server is handed images only: use "
                "backend=transformers."
            )
        rows = self._rows(batch)
        layouts = self._layouts(batch, rows)
        parts = zip(batch.samples, rows, layouts, strict=True)
        prompts = [self._prompt(*part) for part in parts]
        started = time.perf_counter()
        answers = self.server.answer(prompts)
        self.generating_seconds += time.perf_counter() - started
        self.samples += len(prompts)
        self.generated_tokens += sum(len(answer.tokens) for answer in answers)
        return [
            self._prediction(batch, number, layouts[number], answer)
            for number, answer in enumerate(answers)
        ]

    def _rows(self, batch: Batch) -> list[Tensor]:
        """Token ids of each sample, without padding."""
        inputs = batch.ready.inputs
        pairs = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        return [ids[real] for ids, real in pairs]

    def _layouts(self, batch: Batch, rows: list[Tensor]) -> list[PromptLayout]:
        family: Any = self.family
        model: Any = SimpleNamespace(config=family.config)
        return self.family.layouts(model, rows, None, batch.ready.inputs)

    def _prompt(self, sample: Sample, ids: Tensor, layout: PromptLayout) -> ServedPrompt:
        """The prompt with one placeholder for each image."""
        kept = torch.ones(len(ids), dtype=torch.bool)
        for image in layout.images:
            kept[image.tokens[1:]] = False
        family: Any = self.family
        images = tuple(
            family.served_image(self.processor, image, of_image)
            for image, of_image in zip(sample.images, layout.images, strict=True)
        )
        return ServedPrompt(tuple(ids[kept].tolist()), images, sample.id)

    def _prediction(
        self, batch: Batch, number: int, layout: PromptLayout, answer: ServedAnswer
    ) -> Prediction:
        index, sample, encoded = batch.indices[number], batch.samples[number], batch.ready
        if answer.failed:
            return Prediction.of(index, sample, score=0, failed=answer.failed)
        (text,) = self.family.decode(self.processor, torch.tensor([answer.tokens]))
        parsed = self._read(text, sample, encoded.box_frames[number])
        lengths, prunes = [image.length for image in layout.images], self.pruner.prunes()
        remaining = [self.pruner.plan(length)[-1] if prunes else length for length in lengths]
        kept = sum(remaining)
        areas = zip(layout.images, encoded.visible_areas[number], strict=True)
        images = tuple(image.on_original(visible) for image, visible in areas)
        which = _which(layout, answer, prunes)
        prompt = layout.length - sum(lengths) + kept
        layer_tokens = (prompt,) * self.sizes.layers
        whole = (layout.length,) * self.sizes.layers
        first_pass = (layout.length,) * self.pruner.first_pass()
        steps = len(answer.tokens) - 1
        return Prediction.of(
            index,
            sample,
            prompt=encoded.prompts[number],
            prediction=text,
            parsed=parsed if answer.finite else None,
            score=self.metric.score(parsed, sample) if answer.finite else 0,
            failed=None if answer.finite else NOT_FINITE,
            image_size=sample.images[-1].size if sample.images else None,
            prompt_tokens=layout.length,
            visual_tokens=sum(lengths),
            kept_tokens=kept,
            generated_tokens=len(answer.tokens),
            images=images,
            **which,
            **(reached(sample, images, [which["kept"]]) if which else {}),
            layer_tokens=layer_tokens,
            first_pass_tokens=first_pass,
            kv_cache_bytes=self.sizes.cache_bytes(prompt, self.element_size),
            kv_cache_bytes_unpruned=self.sizes.cache_bytes(layout.length, self.element_size),
            prefill_flops=prefill_flops(layer_tokens, self.sizes, first_pass),
            prefill_flops_unpruned=prefill_flops(whole, self.sizes),
            time_to_first_token_ms=_milliseconds(answer.first_token_seconds),
            decode_ms_per_token=_milliseconds(answer.decoding_seconds, steps) if steps else None,
        )


def _which(layout: PromptLayout, answer: ServedAnswer, prunes: bool) -> dict[str, Any]:
    """Fields of the kept tokens, as prompt indices; none where the server does not tell."""
    if not prunes:
        kept: Any = [dict.fromkeys(range(image.length), KEPT) for image in layout.images]
    elif answer.kept is None:
        return {}
    else:
        kept = answer.kept
    words = {
        int(image.tokens[index]): word
        for image, of_image in zip(layout.images, kept, strict=True)
        for index, word in of_image.items()
    }
    return {"kept": tuple(words), "reasons": by_reason(list(words), list(words.values()))}


def _milliseconds(seconds: float | None, count: int = 1) -> float | None:
    return None if seconds is None else 1000 * seconds / count
