"""The samples that pruning broke or fixed, with pictures of the tokens that stayed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.metric import RIGHT
from ivcp.core.types import Box
from ivcp.report.predictions import kept_reasons, layouts, read_samples
from ivcp.report.rows import Row
from ivcp.report.runs import Run
from ivcp.visualize.overlay import draw_overlay

PAIRS, CASES = 6, 4
"""Most pairs of runs of a report, and most samples of a pair regressed, and fixed."""
WIDEST = 720  # pixels of a picture
BLANK, TOKEN = (225, 225, 225), 24
"""Colour of what stands for a photo, and its pixels for a token where its size is not known."""
COLORS = 64  # of a token map


@dataclass(frozen=True)
class Picture:
    """One picture of a sample.

    Attributes:
        caption: What it shows.
        kind: Of the file.
        data: The file.
    """

    caption: str
    kind: Literal["jpeg", "png"]
    data: bytes


@dataclass(frozen=True)
class Case:
    """A sample that only one of two runs has right.

    Attributes:
        sample: Its id.
        fixed: Whether the pruned run has it right.
        question: What was asked, with its options.
        answer: What is right.
        unpruned: What the unpruned run answered.
        pruned: What the pruned run answered.
        pictures: Of the tokens.
        problem: Why there are no pictures; "" if there are.
    """

    sample: str
    fixed: bool
    question: str
    answer: str
    unpruned: str
    pruned: str
    pictures: tuple[Picture, ...]
    problem: str = ""


@dataclass(frozen=True)
class Gallery:
    """What pruning broke and fixed in one run.

    Attributes:
        run: The pruned run.
        base: The unpruned one.
        cases: Samples shown: regressed ones, then fixed ones, each by index.
        regressed: Number of samples that only the unpruned run has right.
        fixed: Number of samples that only the pruned run has right.
        both: Number of samples that both were asked.
    """

    run: Run
    base: Run
    cases: tuple[Case, ...]
    regressed: int
    fixed: int
    both: int


def make_galleries(rows: Sequence[Row]) -> tuple[list[Gallery], list[str]]:
    """Galleries of the first rows that have a baseline, and one sentence for all that is left out.

    An answer is right if its score is half or more.
    """
    pairs = [(row.run, row.base) for row in rows if row.base and row.base is not row.run]
    galleries, problems = [], []
    for run, base in pairs[:PAIRS]:
        try:
            galleries.append(make_gallery(run, base))
        except UserError as error:
            problems.append(f"Gallery of {run.folder}: {error}")
    if len(pairs) > PAIRS:
        problems.append(
            f"Galleries are made of the first {PAIRS} of {len(pairs)} pairs; report fewer runs to "
            "see others."
        )
    return galleries, problems


def make_gallery(run: Run, base: Run) -> Gallery:
    """The samples that only one of two runs has right.

    Raises:
        UserError: The predictions of one cannot be read.
    """
    before = {str(told["id"]): _light(told) for told in read_samples(base)}
    counts = {False: 0, True: 0}  # by whether they are fixed
    shown: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    both = 0
    for told in read_samples(run):
        other = before.get(str(told["id"]))
        if other is None:
            continue
        both += 1
        if (fixed := _right(told)) != _right(other):
            counts[fixed] += 1
            shown[fixed] = nsmallest(CASES, [*shown[fixed], told], key=_index)
    cases = tuple(
        _case(told, before[str(told["id"])], fixed, run, base)
        for fixed, samples in shown.items()
        for told in samples
    )
    return Gallery(run, base, cases, counts[False], counts[True], both)


def _index(told: Mapping[str, Any]) -> int:
    """Index into the dataset."""
    return int(told.get("index") or 0)


def _light(told: Mapping[str, Any]) -> dict[str, Any]:
    """What is looked at of an unpruned answer."""
    return {key: told.get(key) for key in ("score", "prediction", "failed")}


def _right(told: Mapping[str, Any]) -> bool:
    score = told.get("score")
    return isinstance(score, int | float) and score >= RIGHT


def _case(told: dict[str, Any], other: Mapping[str, Any], fixed: bool, run: Run, base: Run) -> Case:
    options = told.get("options") or ()
    letters = " ".join(f"{chr(65 + place)}. {text}" for place, text in enumerate(options))
    try:
        pictures, problem = tuple(_pictures(told, run, base)), ""
    except (UserError, ValueError, TypeError) as error:
        pictures, problem = (), f"No picture: {error}"
    return Case(
        str(told["id"]),
        fixed,
        f"{told.get('question') or ''} {letters}".strip(),
        _text(told.get("answer")),
        _said(other),
        _said(told),
        pictures,
        problem,
    )


def _said(told: Mapping[str, Any]) -> str:
    failed = told.get("failed")
    return f"failed: {failed}" if failed else str(told.get("prediction") or "")


def _text(answer: Any) -> str:
    """A ground truth for readers; boxes in whole pixels."""
    if isinstance(answer, list):
        numbers = all(isinstance(one, int | float) for one in answer)
        return ", ".join(f"{one:.0f}" if numbers else str(one) for one in answer)
    return "-" if answer is None else str(answer)


def _pictures(told: dict[str, Any], run: Run, base: Run) -> Iterator[Picture]:
    """The pictures that both runs left of a sample; else a map of the tokens."""
    index = _index(told)
    own, others = _saved(run, index), _saved(base, index)
    for place, path in enumerate(own):
        if len(others) == len(own):
            yield _photo(others[place], "unpruned")
        yield _photo(path, f"pruned by {run.pruner}")
    if own:
        return
    reasons = kept_reasons(told)
    images = layouts(told)
    for place, layout in enumerate(images):
        last = place == len(images) - 1
        yield _map(layout, reasons, told if last else {})


def _saved(run: Run, index: int) -> list[Path]:
    found = (run.folder / "pictures").glob(f"{index:03d}_*.png")
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _photo(path: Path, caption: str) -> Picture:
    """A picture of a run, smaller.

    Raises:
        UserError: It cannot be read.
    """
    file = io.BytesIO()
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read.") from error
    small.thumbnail((WIDEST, 2 * WIDEST))
    small.save(file, format="JPEG", quality=80)
    return Picture(caption, "jpeg", file.getvalue())


def _map(layout: ImageLayout, reasons: Mapping[int, str], told: Mapping[str, Any]) -> Picture:
    """Kept and dropped tokens over a blank in place of the photo.

    Args:
        layout: The image's tokens.
        reasons: Of all kept tokens.
        told: The sample, if its boxes and its size are this image's.
    """
    grid = layout.grids[0]
    size = told.get("image_size") or (grid.columns * TOKEN, grid.rows * TOKEN)
    own = {token: reasons[token] for token in layout.tokens.tolist() if token in reasons}
    boxed = told.get("task") == "grounding"
    drawn = draw_overlay(
        Image.new("RGB", (int(size[0]), int(size[1])), BLANK),
        layout=layout,
        kept=list(own),
        reasons=list(own.values()),
        predicted=_box(told.get("parsed")) if boxed else None,
        truth=_box(told.get("answer")) if boxed else None,
    )
    drawn.thumbnail((WIDEST, 2 * WIDEST))
    file = io.BytesIO()
    drawn.quantize(COLORS).save(file, format="PNG", optimize=True)
    return Picture("token map (no photo was saved)", "png", file.getvalue())


def _box(told: Any) -> Box | None:
    if not isinstance(told, list) or len(told) != 4:
        return None
    x1, y1, x2, y2 = map(float, told)
    return x1, y1, x2, y2
