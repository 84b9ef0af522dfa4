"""The Lightning module of runs that a server answers: `backend=vllm`."""

from __future__ import annotations

import time
import zlib
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ivcp.core.backend import Backend, ServedPrompt
from ivcp.core.layout import PromptLayout
from ivcp.core.types import Sample
from ivcp.evaluation.data import Batch
from ivcp.evaluation.module import Evaluation
from ivcp.measure.flops import DecoderSizes, prefill_flops
from ivcp.results.prediction import Prediction


class ServedEvaluation(Evaluation):
    """Hands batches to a server, whole, and scores its answers.

    A server tells neither which tokens it kept nor how long a part of an answer took, so these are
    left out of the records. How many tokens each layer processes is known, since they leave before
    the first one, and so are operations and bytes, by formula.

    Args:
        backend: The server.
        arguments: Those of `Evaluation`.
    """

    def __init__(self, backend: Backend, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.backend = backend

    def setup(self, stage: str) -> None:
        """Start the server."""
        family: Any = self.family
        self.processor = family.processor()
        self.sizes = DecoderSizes.of(self.family.decoder(family.skeleton()))
        self.backend.start(family, self.pruner)

    def release(self) -> None:
        self.backend.stop()

    def machine(self) -> dict[str, Any]:
        return {"peak_memory_bytes": None, "rotary": None, **self.backend.about()}

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        """The server takes images, and no inputs of a model."""
        return batch

    def _answer(self, batch: Batch) -> list[Prediction]:
        layouts = self._layouts(batch)
        rows = self._rows(batch)
        prompts = [self._prompt(*part) for part in zip(batch.samples, rows, layouts, strict=True)]
        seed = zlib.crc32(f"{self.seed}/{batch.indices[0]}".encode())
        started = time.perf_counter()
        answers = self.backend.answer(prompts, self.generation, seed)
        self.generating_seconds += time.perf_counter() - started
        self.samples += len(prompts)
        self.generated_tokens += sum(map(len, answers))
        return [
            self._prediction(batch, number, layouts[number], tokens)
            for number, tokens in enumerate(answers)
        ]

    def _rows(self, batch: Batch) -> list[Tensor]:
        """Token ids of each sample, without padding."""
        inputs = batch.ready.inputs
        pairs = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        return [ids[real] for ids, real in pairs]

    def _layouts(self, batch: Batch) -> list[PromptLayout]:
        family: Any = self.family
        model: Any = SimpleNamespace(config=family.config)
        return self.family.layouts(model, self._rows(batch), None, batch.ready.inputs)

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
        self, batch: Batch, number: int, layout: PromptLayout, tokens: list[int]
    ) -> Prediction:
        sample, encoded = batch.samples[number], batch.ready
        (text,) = self.family.decode(self.processor, torch.tensor([tokens]))
        parsed = self._read(text, sample, encoded.box_frames[number])
        lengths = [image.length for image in layout.images]
        kept = sum(self.pruner.plan(length)[-1] for length in lengths) if self.prunes else None
        kept = sum(lengths) if kept is None else kept
        areas = zip(layout.images, encoded.visible_areas[number], strict=True)
        prompt = layout.length - sum(lengths) + kept
        layer_tokens = (prompt,) * self.sizes.layers
        whole = (layout.length,) * self.sizes.layers
        first_pass = (layout.length,) * self.pruner.first_pass()
        return Prediction.of(
            batch.indices[number],
            sample,
            prompt=encoded.prompts[number],
            prediction=text,
            parsed=parsed,
            score=self.metric.score(parsed, sample),
            image_size=sample.images[-1].size if sample.images else None,
            prompt_tokens=layout.length,
            visual_tokens=sum(lengths),
            kept_tokens=kept,
            generated_tokens=len(tokens),
            images=tuple(image.on_original(visible) for image, visible in areas),
            layer_tokens=layer_tokens,
            first_pass_tokens=first_pass,
            kv_cache_bytes=self.sizes.cache_bytes(prompt, self.element_size),
            kv_cache_bytes_unpruned=self.sizes.cache_bytes(layout.length, self.element_size),
            prefill_flops=prefill_flops(layer_tokens, self.sizes, first_pass),
            prefill_flops_unpruned=prefill_flops(whole, self.sizes),
        )

    @property
    def prunes(self) -> bool:
        """Whether the method drops anything."""
        return bool(self.pruner.stages())

    @property
    def element_size(self) -> int:
        """Bytes of a number of the cache."""
        return torch.finfo(getattr(torch, self.backend.about()["dtype"])).bits // 8
