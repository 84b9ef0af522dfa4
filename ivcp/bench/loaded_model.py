"""A model in memory, which measures one group after the other."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from ivcp.bench.backend import slower_backend
from ivcp.bench.image import bench_image, image_size
from ivcp.bench.limits import decode_limit, step_bytes
from ivcp.bench.result import BenchInfo, Group, Measured, MethodInfo, compared
from ivcp.bench.rotation import OUT_OF_MEMORY, UNPRUNED, RotatedRuns
from ivcp.bench.subject import Method, Subject
from ivcp.bench.verdict import verdict
from ivcp.core.errors import UserError
from ivcp.core.resizing import encode_for
from ivcp.core.types import Sample


class LoadedModel:
    """A model in memory, ready to measure.

    Args:
        subject: The model.
        target: Where it goes, unless it places itself.
    """

    def __init__(self, subject: Subject, target: torch.device) -> None:
        self.subject, self.family = subject, subject.family
        try:
            self.model, self.processor = self.family.load()
            if getattr(self.family, "device_map", None) is None:
                self.model.to(target)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The weights of {subject.name} do not fit into the device's memory; use a smaller "
                "model or dtype (model.dtype=bfloat16), or model.device_map=auto."
            ) from error
        self.device = next(self.model.parameters()).device

    def image(self, tokens: int) -> Image.Image:
        """A scene that gives about so many visual tokens."""
        return bench_image(image_size(tokens, self.family, self.processor))

    def release(self) -> None:
        """Free its memory."""
        self.family.release(self.model)
        del self.model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def measure(
        self,
        about: BenchInfo,
        methods: Sequence[Method],
        image: Image.Image,
        wanted: int | None,
        batch: int,
        *,
        syncs: bool,
    ) -> Group:
        """One group."""
        sample = Sample(
            id="bench", task="open_ended", images=(image,), question=about.question, answer="",
            verbatim=True,
        )  # fmt: skip
        samples = [sample] * batch
        encoded = self.family.encode(self.processor, samples)
        resized = [
            encode_for(m.pruner, self.family, self.processor, samples)
            if m.pruner.before_processor else encoded
            for m in methods
        ]  # fmt: skip
        try:
            inputs, *pruned_inputs = (
                {name: value.to(self.device) for name, value in each.inputs.items()}
                for each in (encoded, *resized)
            )
        except torch.OutOfMemoryError:
            return self._group(methods, image, wanted, batch, encoded.inputs, [])
        runs = RotatedRuns(
            self.model, self.family, [method.pruner for method in methods], inputs,
            pruned_inputs=pruned_inputs, new_tokens=about.new_tokens, question=about.question,
        )  # fmt: skip
        console = Console(stderr=True)
        bar = Progress(
            console=console, disable=not console.is_terminal, transient=True, auto_refresh=False
        )  # a refreshing thread would run beside what is timed
        title = f"{self.subject.name}, {image.width} x {image.height} pixels, batch {batch}"
        with bar:
            repeats = runs.repeats(about.repeats, about.warmup)
            times = list(bar.track(repeats, about.repeats, description=title))
        decoder: Any = self.family.decoder(self.model)
        head: Any = getattr(self.model, "get_output_embeddings", lambda: None)()
        weights = step_bytes(decoder, head, batch)
        rows = []
        for number in range(len(methods) + 1):
            row: dict[str, Any] = {"status": runs.failures.get(number, "ok")}
            counts = row["counts"] = runs.counts(number) if number != UNPRUNED else None
            if counts is not None:
                cache = counts.kv_cache_bytes
                row["decode_bytes_ratio"] = decode_limit(
                    weights, cache.unpruned or 0, cache.pruned or 0
                )
            if row["status"] == "ok":
                measured = [repeat[number] for repeat in times]
                plain = [repeat[UNPRUNED] for repeat in times]
                row["runs"] = tuple(run for run in measured if run is not None)
                row |= compared(row["runs"], plain, batch, about.new_tokens)
                if syncs:
                    row["synchronisations"] = runs.synchronisations(number)
            rows.append(row)
        visual = sum(each.length for each in runs.layout(UNPRUNED).images)
        return self._group(methods, image, wanted, batch, inputs, rows, visual)

    def _group(
        self,
        methods: Sequence[Method],
        image: Image.Image,
        wanted: int | None,
        batch: int,
        inputs: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        visual: int | None = None,
    ) -> Group:
        """A group of what was measured; without rows, nothing fitted into memory."""
        model: Any = self.model
        rows = rows or [{"status": OUT_OF_MEMORY}] * (len(methods) + 1)
        infos = [MethodInfo(pruner="unpruned")]
        for method, row in zip(methods, rows[1:], strict=True):
            counts = row.get("counts")
            infos.append(method.info(counts and counts.visual_tokens.ratio))
        measured = [Measured(info=i, **row) for i, row in zip(infos, rows, strict=True)]
        measured[1:] = [row.model_copy(update={"verdict": verdict(row)}) for row in measured[1:]]
        expected = round(self.family.expected_tokens(self.processor, [image.size]))
        return Group(
            model=self.subject.name,
            weights=self.family.identity(),
            dtype=str(model.dtype).removeprefix("torch."),
            attention=model.config._attn_implementation,
            image=image.size,
            wanted_tokens=() if wanted is None else (wanted,),
            visual_tokens=expected if visual is None else visual,
            prompt_tokens=inputs["input_ids"].shape[1],
            batch_size=batch,
            methods=tuple(measured),
            warning=slower_backend(model, self.device),
            date=datetime.now().astimezone().isoformat(timespec="seconds"),
        )
