"""Samples for the page: each once, with what every run answered and which tokens it kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, TypeAlias

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.metric import RIGHT
from ivcp.core.strip import drawn_moments
from ivcp.core.types import Answer
from ivcp.report.comparison import Entry
from ivcp.report.kept_tokens import drawable_images, kept_reasons
from ivcp.report.marks import block_of
from ivcp.report.photos import Photos
from ivcp.report.rotary_scores import rotary_scores
from ivcp.results.prediction import Prediction
from ivcp.visualize.panel import reason_color

MOST_RUNS = 100
"""Runs of a page that have samples."""
DROPPED = "."
"""Stands for a token that was dropped; letters from "a" stand for reasons."""
MOST_REASONS, MOST_OPTIONS, MOST_CODES = 26, 26, 10_000_000
"""Kinds of reasons, options of a question, and visual tokens of all answers of a gallery."""
MOST_LABELS, LONGEST = 8, 2000
"""Labels of a sample, and characters of a question or an answer."""

Scores: TypeAlias = dict[str, tuple[int, float]]
"""Index and score of each sample of a run, by its id."""


@dataclass(frozen=True)
class Gallery:
    """Samples of the runs of one dataset, model and metric.

    Attributes:
        title: Which runs these are.
        data: What the page's script reads.
    """

    title: str
    data: dict[str, Any]


def make_galleries(
    entries: Sequence[Entry], samples: int, most_runs: int = MOST_RUNS
) -> tuple[list[Gallery], list[bytes], list[str]]:
    """Galleries of all runs that have predictions, or of the first ones.

    Args:
        entries: The runs of the page; a gallery names them by their indices.
        samples: Most samples of a gallery.
        most_runs: Most runs of all galleries together.

    Returns:
        The galleries, the images that they share (JPEG), and a sentence for each thing that is
        missing.
    """
    blocks: dict[object, dict[int, Entry]] = {}
    for number, entry in enumerate(entries):
        blocks.setdefault(block_of(entry), {})[number] = entry
    photos, galleries = Photos(), []
    problems: list[str] = []
    room = most_runs
    for block in blocks.values():
        taken = dict(list(block.items())[:room])
        room -= len(taken)
        if taken and (gallery := _make_gallery(taken, entries, samples, photos, problems)):
            galleries.append(gallery)
    if len(entries) > most_runs:
        problems.append(
            f"Samples of the first {most_runs} of {len(entries)} runs are on the page; look at "
            "fewer runs to have others."
        )
    return galleries, photos.files, [*problems, *photos.problems]


def _make_gallery(
    runs: Mapping[int, Entry],
    entries: Sequence[Entry],
    samples: int,
    photos: Photos,
    problems: list[str],
) -> Gallery | None:
    scores: dict[int, Scores] = {}
    for number, entry in runs.items():
        try:
            scores[number] = {p.id: (p.index, p.score) for p in entry.run.predictions()}
        except UserError as error:
            problems.append(f"Samples of {entry.run.folder}: {error}.")
    if not scores:
        return None
    numbers = {entry.run: number for number, entry in enumerate(entries)}
    bases = {n: numbers.get(base.run) for n in scores if (base := runs[n].base)}
    chosen = choose_samples(scores, bases, samples)
    writer = _Writer()
    for number in scores:
        for prediction in runs[number].run.predictions():
            if prediction.id in chosen:
                writer.add(number, prediction, runs[number])
    first = next(iter(scores))
    written = [writer.samples[name] for name in chosen]
    images = photos.add(runs[first], [writer.predictions[name] for name in chosen])
    for name, sample in zip(chosen, written, strict=True):
        sample["images"] = images.get(name, [])
        if not sample["images"]:
            for number, answer in sample["runs"].items():
                index = scores[number][name][0]
                if saved := photos.add_saved(runs[number], index):
                    answer["saved"] = saved
    entry = runs[first]
    counts = {
        n: _count_changes(scores[n], scores.get(b)) for n, b in bases.items() if b is not None
    }
    return Gallery(
        f"{entry.dataset} · {entry.info.model} · {entry.metric.name}",
        {
            "runs": list(scores),
            "changes": {
                n: dict(zip(("regressed", "fixed"), c, strict=True)) for n, c in counts.items()
            },
            "total": len(set().union(*scores.values())),
            "samples": written,
            "layouts": writer.layouts,
            "reasons": [[name, _hex(name)] for name in writer.reasons],
            "positions": writer.positions,
        },
    )


def choose_samples(
    scores: Mapping[int, Scores], bases: Mapping[int, int | None], most: int
) -> list[str]:
    """Ids of the samples to show, by index.

    Runs take turns: each adds the next sample that it regressed, then the next that it fixed. What
    is left of the room goes to other samples.

    Args:
        scores: Of each run.
        bases: The unpruned run of a run, both by their numbers.
        most: How many samples.
    """
    indices = {name: index for run in scores.values() for name, (index, _) in run.items()}
    queues = []
    for number, base in bases.items():
        before = scores.get(base, {}) if base is not None else {}
        both = sorted(scores[number].keys() & before.keys(), key=indices.__getitem__)
        for fixed in (False, True):
            queues.append(
                [
                    name
                    for name in both
                    if (scores[number][name][1] >= RIGHT) is fixed
                    and (before[name][1] >= RIGHT) is not fixed
                ]
            )
    turns = chain.from_iterable(zip_longest(*queues))
    others = sorted(indices, key=indices.__getitem__)
    chosen = dict.fromkeys(name for name in chain(turns, others) if name is not None)
    return sorted(list(chosen)[:most], key=indices.__getitem__)


def _count_changes(scores: Scores, before: Scores | None) -> tuple[int, int]:
    """How many samples pruning regressed, and how many it fixed."""
    pairs = [
        (score >= RIGHT, before[name][1] >= RIGHT)
        for name, (_, score) in scores.items()
        if before and name in before
    ]
    return pairs.count((False, True)), pairs.count((True, False))


class _Writer:
    """Gathers samples, and what they share, as the script reads them."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, Any]] = {}
        self.predictions: dict[str, Prediction] = {}
        self.layouts: list[list[list[dict[str, Any]]]] = []
        self.positions: dict[int, list[list[float]]] = {}
        self.reasons: list[str] = []
        self._numbers: dict[ImageLayout, int] = {}
        self._room = MOST_CODES

    def add(self, number: int, prediction: Prediction, entry: Entry) -> None:
        """Add what a run answered."""
        name = prediction.id
        if name not in self.samples:
            self.predictions[name] = prediction
            self.samples[name] = _question(prediction)
        answer: dict[str, Any] = {
            "text": _answered(prediction),
            "score": round(prediction.score, 4),
            "kept": prediction.kept_tokens,
            "visual": prediction.visual_tokens,
        }
        if prediction.task == "grounding":
            answer["box"] = _box(prediction.parsed)
        try:
            layouts = drawable_images(prediction)
            self._room -= prediction.visual_tokens
            if self._room < 0:
                raise UserError("The page has no room for more tokens.")
            answer["inBox"] = prediction.kept_in_box[-1] if prediction.kept_in_box else None
            reasons = kept_reasons(prediction)
            untold = prediction.kept_tokens and not prediction.kept
            answer["layouts"] = [self._layout(layout, prediction, entry) for layout in layouts]
            answer["codes"] = [] if untold else [self._codes(layout, reasons) for layout in layouts]
        except (UserError, ValueError, ArithmeticError) as error:
            answer["problem"] = str(error)
        self.samples[name]["runs"][number] = answer

    def _layout(self, layout: ImageLayout, prediction: Prediction, entry: Entry) -> int:
        """The number of a layout: for each panel its grids; a thumbnail and a frame stand alone.

        Of a long video, a few moments are there.
        """
        if layout not in self._numbers:
            number = self._numbers[layout] = len(self.layouts)
            spans = zip(layout.grids, layout.spans, strict=True)
            apart: list[list[dict[str, Any]]] = []
            joined: list[dict[str, Any]] = []
            drawn = set(drawn_moments(layout))
            for moment, (grid, (start, _)) in enumerate(spans):
                if grid.kind == "frame" and moment not in drawn:
                    continue
                if grid.kind in ("thumbnail", "frame"):
                    apart.append([_grid(grid, start)])
                else:
                    joined.append(_grid(grid, start))
            self.layouts.append([joined, *apart] if joined else apart)
            is_first = layout == prediction.images[0]
            if is_first and (scores := rotary_scores(entry, prediction)) is not None:
                self.positions[number] = [
                    [round(value, 4) for value in values.tolist()] for values in scores
                ]
        return self._numbers[layout]

    def _codes(self, layout: ImageLayout, reasons: Mapping[int, str]) -> str:
        """A character for each visual token."""
        return "".join(self._code(reasons.get(token)) for token in layout.tokens.tolist())

    def _code(self, reason: str | None) -> str:
        if reason is None:
            return DROPPED
        if reason not in self.reasons:
            self.reasons.append(reason)
        return chr(ord("a") + self.reasons.index(reason) % MOST_REASONS)


def _question(prediction: Prediction) -> dict[str, Any]:
    """What all runs have in common."""
    answer, size = prediction.answer, prediction.image_size
    return {
        "key": prediction.id,
        "question": prediction.question[:LONGEST],
        "options": prediction.options[:MOST_OPTIONS],
        "answer": _answer_text(answer)[:LONGEST],
        "box": _box(answer) if prediction.task == "grounding" else None,
        "labels": dict(list(prediction.labels.items())[:MOST_LABELS]),
        "size": size if size and min(size) > 0 else None,
        "runs": {},
    }


def _grid(grid: Grid, start: int) -> dict[str, Any]:
    area = [round(edge, 5) for edge in grid.area]
    return {
        "rows": grid.rows,
        "columns": grid.columns,
        "area": area,
        "kind": grid.kind,
        "start": start,
    }


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


def _box(answer: Answer | None) -> list[float] | None:
    """A box in pixels of the original image, if the answer is one."""
    if not isinstance(answer, tuple) or len(answer) != 4:
        return None
    edges = [edge for edge in answer if isinstance(edge, float) and abs(edge) < 1e6]
    return edges if len(edges) == 4 else None


def _hex(reason: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*reason_color(reason))
