"""Pictures of the kept tokens of a run's first samples, drawn from its predictions."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ivcp.core.layout import ImageLayout
from ivcp.core.strip import strip_parts
from ivcp.core.types import Sample
from ivcp.core.video import Clip, Video
from ivcp.evaluation.data import ReadableItems
from ivcp.results.files import full_disk_explained, write_atomically
from ivcp.results.prediction import Prediction

Draw = Callable[..., Image.Image]
"""Draws over one image: called with the image, and `layout` (its visual tokens, areas in fractions
of it), `kept` (indices into the prompt) and `reasons`, `predicted` and `truth` (boxes in its pixels
or None), `title`. Of a video, it gets a list of frames, one a grid, and their `labels`."""

ReadClip = Callable[[Video], Clip]
"""Reads the frames of a video that the model was shown."""

log = logging.getLogger(__name__)


def draw_missing(
    folder: Path,
    count: int,
    draw: Draw,
    predictions: Sequence[Prediction],
    items: ReadableItems,
    read_clip: ReadClip,
) -> list[Path]:
    """Draw the overlays of the first samples that are not there yet, as after an interruption.

    Args:
        folder: Where they are; made when needed.
        count: Number of samples.
        draw: Draws one.
        predictions: All of them, in dataset order.
        items: The samples.
        read_clip: Reads the frames of a video again.

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
            try:
                _save(folder, prediction, sample, draw, read_clip)
            except OSError as error:  # the clip is gone or changed since it was answered
                log.warning("No overlay of sample %s: %s", sample.id, error)
    return sorted(folder.glob("*.png"))


def _save(
    folder: Path, prediction: Prediction, sample: Sample, draw: Draw, read_clip: ReadClip
) -> None:
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in sample.id)[:80]
    several = len(sample.images) + len(sample.videos) > 1
    for number, overlay in enumerate(overlays(draw, sample, prediction, read_clip), 1):
        suffix = f"_{number}" if several else ""
        path, file = folder / f"{prediction.index:03d}_{name}{suffix}.png", io.BytesIO()
        overlay.save(file, format="PNG")
        with full_disk_explained(path):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue())


def overlays(
    draw: Draw, sample: Sample, prediction: Prediction, read_clip: ReadClip
) -> Iterator[Image.Image]:
    """One overlay for each video and image of a sample; boxes belong to the last image."""
    title = f"{sample.question}: {' '.join(prediction.prediction.split())[:120]}"
    of_videos = prediction.images[: len(sample.videos)]
    of_images = prediction.images[len(sample.videos) :]
    for video, layout in zip(sample.videos, of_videos, strict=True):
        frames, arguments = _strip(layout, read_clip(video), prediction, title)
        yield draw(frames, **arguments)
    for number, (image, layout) in enumerate(zip(sample.images, of_images, strict=True)):
        reasons = _reasons(layout, prediction)
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


def _strip(
    layout: ImageLayout, clip: Clip, prediction: Prediction, title: str
) -> tuple[list[Image.Image], dict[str, Any]]:
    """Arguments of `Draw` for a video: a few moments, each with its first frame and its time."""
    images, drawn, labels = strip_parts(layout, clip)
    reasons = _reasons(layout, prediction)
    if len(images) < len(layout.grids):
        title += (
            f" ({len(images)} of {len(layout.grids)} moments; of all, {len(reasons)} of "
            f"{layout.length} tokens are kept)"
        )
    reasons = _reasons(drawn, prediction)
    return images, {
        "layout": drawn,
        "kept": list(reasons),
        "reasons": list(reasons.values()),
        "title": title,
        "labels": labels,
    }


def _reasons(layout: ImageLayout, prediction: Prediction) -> dict[int, str]:
    """Why each kept token of an image or video was kept."""
    tokens = set(layout.tokens.tolist())
    reasons = {token: "kept" for token in prediction.kept if token in tokens}
    for name, indices in prediction.reasons.items():
        reasons |= {token: name for token in indices if token in tokens}
    return reasons
