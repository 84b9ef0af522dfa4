"""Pictures of the kept tokens of a run's first samples, drawn from its predictions."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from ivcp.core.types import Sample
from ivcp.evaluation.data import ReadableItems
from ivcp.results.files import full_disk_explained, write_atomically
from ivcp.results.prediction import Prediction

Draw = Callable[..., Image.Image]
"""Draws over one image: called with the image, and `layout` (its visual tokens, areas in fractions
of it), `kept` (indices into the prompt) and `reasons`, `predicted` and `truth` (boxes in its pixels
or None), `title`."""


def draw_missing(
    folder: Path, count: int, draw: Draw, predictions: Sequence[Prediction], items: ReadableItems
) -> list[Path]:
    """Draw the overlays of the first samples that are not there yet, as after an interruption.

    Args:
        folder: Where they are; made when needed.
        count: Number of samples.
        draw: Draws one.
        predictions: All of them, in dataset order.
        items: The samples.

    Returns:
        All overlays of the folder; the names begin with the index of the sample.
    """
    for prediction in predictions[:count]:
        untold = prediction.kept_tokens > len(prediction.kept)  # a server may not tell which
        there = any(folder.glob(f"{prediction.index:03d}_*.png"))
        if prediction.failed is not None or untold or there:
            continue
        sample = items[prediction.index].sample
        if sample is not None:
            _save(folder, prediction, sample, draw)
    return sorted(folder.glob("*.png"))


def _save(folder: Path, prediction: Prediction, sample: Sample, draw: Draw) -> None:
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in sample.id)[:80]
    for number, overlay in enumerate(overlays(draw, sample, prediction), 1):
        suffix = f"_{number}" if len(sample.images) > 1 else ""
        path, file = folder / f"{prediction.index:03d}_{name}{suffix}.png", io.BytesIO()
        overlay.save(file, format="PNG")
        with full_disk_explained(path):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue())


def overlays(draw: Draw, sample: Sample, prediction: Prediction) -> Iterator[Image.Image]:
    """One overlay for each image of a sample; boxes belong to the last image."""
    title = f"{sample.question}: {' '.join(prediction.prediction.split())[:120]}"
    layouts = prediction.images[len(sample.videos) :]
    for number, (image, layout) in enumerate(zip(sample.images, layouts, strict=True)):
        tokens = set(layout.tokens.tolist())
        reasons = {token: "kept" for token in prediction.kept if token in tokens}
        for name, indices in prediction.reasons.items():
            reasons |= {token: name for token in indices if token in tokens}
        boxed = prediction.task == "grounding" and number == len(sample.images) - 1
        yield draw(
            image,
            layout=layout,
            kept=list(reasons),
            reasons=list(reasons.values()),
            predicted=prediction.parsed if boxed else None,
            truth=sample.answer if boxed else None,
            title=title,
        )
