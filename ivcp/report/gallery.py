"""The samples that pruning regressed or fixed, with images of the tokens that were kept."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import isfinite
from operator import attrgetter
from pathlib import Path
from string import ascii_uppercase

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.metric import RIGHT
from ivcp.core.strip import drawn_moments, strip_of
from ivcp.core.types import Answer, Box
from ivcp.report.comparison import Entry
from ivcp.report.kept_tokens import drawable_images, kept_reasons
from ivcp.report.page import LONGEST, PageImage
from ivcp.results.prediction import Prediction
from ivcp.visualize.overlay import draw_overlay

PAIRS, CASES, IMAGES = 6, 4, 16
"""Most pairs of runs of a report, samples of a pair regressed, and fixed, images of a sample."""
WIDEST = 720  # pixels of an image on the page
LARGEST = 50_000_000  # pixels of a saved overlay
BLANK, TOKEN = (225, 225, 225), 24
"""Colour of what stands for the photo, and its pixels for a token where its size is not known."""
COLORS = 64  # of a token map


@dataclass(frozen=True)
class Case:
    """A sample that only one of two runs has right.

    Attributes:
        sample: Its id.
        fixed: Whether the pruned run has it right.
        question: With its options.
        answer: What is right.
        unpruned: What the unpruned run answered.
        pruned: What the pruned run answered.
        images: Of the tokens.
        problem: Why there are no images; "" if there are.
    """

    sample: str
    fixed: bool
    question: str
    answer: str
    unpruned: str
    pruned: str
    images: tuple[PageImage, ...]
    problem: str = ""


@dataclass(frozen=True)
class Gallery:
    """What pruning regressed and fixed in one run.

    Attributes:
        entry: The pruned run.
        cases: Samples shown: regressed ones, then fixed ones, each by index.
        regressed: Number of samples that only the unpruned run has right.
        fixed: Number of samples that only the pruned run has right.
        both: Number of samples that both answered.
    """

    entry: Entry
    cases: tuple[Case, ...]
    regressed: int
    fixed: int
    both: int


def make_galleries(entries: Sequence[Entry]) -> tuple[list[Gallery], list[str]]:
    """Galleries of the first runs that have a baseline, and a sentence for each that is left out.

    An answer is right if its score is half or more.
    """
    pairs = [(entry, entry.base) for entry in entries if entry.base]
    galleries, problems = [], []
    for entry, base in pairs[:PAIRS]:
        try:
            galleries.append(make_gallery(entry, base))
        except UserError as error:
            problems.append(f"Gallery of {entry.run.folder}: {error}.")
    if len(pairs) > PAIRS:
        problems.append(
            f"Galleries are made of the first {PAIRS} of {len(pairs)} pairs; report fewer runs to "
            "see others."
        )
    return galleries, problems


def make_gallery(entry: Entry, base: Entry) -> Gallery:
    """The samples that only one of two runs has right.

    Raises:
        UserError: The predictions of one cannot be read.
    """
    before = {
        prediction.id: (prediction.score >= RIGHT, _answered(prediction))
        for prediction in base.run.predictions()
    }
    counts = {False: 0, True: 0}  # by whether they are fixed
    changed: dict[bool, list[Prediction]] = {False: [], True: []}
    both, by_index = 0, attrgetter("index")
    for prediction in entry.run.predictions():
        if prediction.id in before:
            both += 1
            fixed = prediction.score >= RIGHT
            if fixed != before[prediction.id][0]:
                counts[fixed] += 1
                changed[fixed] = nsmallest(CASES, [*changed[fixed], prediction], by_index)
    cases = tuple(
        _case(prediction, before[prediction.id][1], fixed, entry, base)
        for fixed, predictions in changed.items()
        for prediction in predictions
    )
    return Gallery(entry, cases, counts[False], counts[True], both)


def _case(prediction: Prediction, unpruned: str, fixed: bool, entry: Entry, base: Entry) -> Case:
    letters = zip(ascii_uppercase, prediction.options, strict=False)
    options = " ".join(f"{letter}. {text}" for letter, text in letters)
    try:
        images, problem = tuple(_images(prediction, entry, base)), ""
    except (UserError, ValueError, ArithmeticError) as error:
        images, problem = (), f"No image: {error}"
    return Case(
        prediction.id,
        fixed,
        f"{prediction.question} {options}".strip(),
        _answer_text(prediction.answer),
        unpruned,
        _answered(prediction),
        images,
        problem,
    )


def _answered(prediction: Prediction) -> str:
    failed = prediction.failed
    return (prediction.prediction if failed is None else f"failed: {failed}")[:LONGEST]


def _answer_text(answer: Answer | None) -> str:
    """A ground truth for readers; boxes in whole pixels, spans in tenths of a second."""
    if isinstance(answer, tuple) and len(answer) == 2 and not isinstance(answer[0], str):
        return " - ".join(f"{second:.1f} s" for second in answer)
    if isinstance(answer, tuple):
        return ", ".join(f"{x:.0f}" if isinstance(x, int | float) else str(x) for x in answer)
    return "-" if answer is None else str(answer)


def _images(prediction: Prediction, entry: Entry, base: Entry) -> Iterator[PageImage]:
    """The overlays that both runs saved of a sample; else a map of the tokens."""
    pruned, unpruned = _saved(entry, prediction.index), _saved(base, prediction.index)
    for number, path in enumerate(pruned):
        if len(unpruned) == len(pruned):
            yield _overlay(unpruned[number], "unpruned")
        yield _overlay(path, f"pruned by {entry.info.pruner}")
    if not pruned:
        reasons, images = kept_reasons(prediction), drawable_images(prediction)
        for image in images:
            yield _token_map(image, reasons, prediction if image is images[-1] else None)


def _saved(entry: Entry, index: int) -> list[Path]:
    paths = (entry.run.folder / "pictures").glob(f"{index:03d}_*.png")
    return sorted(paths, key=lambda path: (len(path.name), path.name))[:IMAGES]


def _overlay(path: Path, caption: str) -> PageImage:
    """A saved overlay, smaller.

    Raises:
        UserError: It cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > LARGEST:
                    raise UserError(f"{path} has more than {LARGEST:,} pixels.")
                small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read.") from error
    small.thumbnail((WIDEST, 2 * WIDEST))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=80)
    return PageImage(caption, file.getvalue(), "jpeg")


def _token_map(
    layout: ImageLayout, reasons: Mapping[int, str], prediction: Prediction | None
) -> PageImage:
    """Kept and dropped tokens over a blank instead of the photo.

    Args:
        layout: The image's tokens.
        reasons: Of all kept tokens.
        prediction: The prediction, if its boxes and its size are this image's.
    """
    grid = layout.grids[0]
    size = (prediction and prediction.image_size) or (grid.columns * TOKEN, grid.rows * TOKEN)
    if min(size) < 1:
        raise UserError(f"an image cannot be of {size[0]} x {size[1]} pixels")
    factor = min(1.0, 2 * WIDEST / max(size))
    moments, of_video = drawn_moments(layout), grid.kind == "frame"
    drawn_layout = strip_of(layout, moments)
    kept = {token: reasons[token] for token in drawn_layout.tokens.tolist() if token in reasons}
    boxes = (
        (prediction.parsed, prediction.answer)
        if prediction and prediction.task == "grounding"
        else (None, None)
    )
    parsed, truth = (_box(answer, factor) for answer in boxes)
    drawn = draw_overlay(
        Image.new("RGB", (max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), BLANK),
        layout=drawn_layout,
        kept=list(kept),
        reasons=list(kept.values()),
        predicted=parsed,
        truth=truth,
        labels=[f"moment {moment + 1}" for moment in moments] if of_video else None,
    )
    drawn.thumbnail((WIDEST, 2 * WIDEST))
    file = io.BytesIO()
    drawn.quantize(COLORS).save(file, format="PNG", optimize=True)
    total = len(layout.grids)
    some = "" if len(moments) == total else f", {len(moments)} of {total} moments"
    return PageImage(f"token map (no photo was saved){some}", file.getvalue())


def _box(answer: Answer | None, factor: float) -> Box | None:
    """A box, if the answer is one, in pixels of a smaller image."""
    if not isinstance(answer, tuple) or len(answer) != 4:
        return None
    edges = [factor * edge for edge in answer if isinstance(edge, float) and isfinite(edge)]
    return (edges[0], edges[1], edges[2], edges[3]) if len(edges) == 4 else None
