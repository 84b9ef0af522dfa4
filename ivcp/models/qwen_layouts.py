"""Layouts of prompts in which each image, and the frames of a video, are runs of one token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from ivcp.core.errors import UserError
from ivcp.core.family import Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.models.placeholders import repeats, runs

Runs: TypeAlias = list[list[tuple[int, int, int]]]
"""For each row, (start, length, token) of each run of visual tokens."""


def check_types(rows: Rows, positions: Rows | None, tokens: Sequence[int]) -> None:
    """Refuse prompts whose visual tokens the library would number like text.

    Args:
        rows: (S,) token ids of each row.
        positions: (3, S) positions of each row, if the caller passes them.
        tokens: The visual tokens.

    Raises:
        UserError: They are.
    """
    for number, of_row in enumerate(_runs(rows, tokens)):
        for start, length, _ in of_row:
            span = None if positions is None else positions[number][:, start : start + length]
            if span is None or (length > 1 and (span == span[:1]).all()):
                raise UserError(
                    "The inputs lack mm_token_type_ids, without which image tokens are numbered "
                    "like text: pass what the processor gives."
                )


def run_layouts(
    rows: Rows,
    positions: Rows | None,
    kinds: Mapping[int, str],
    grids: Mapping[int, Sequence[tuple[int, int]]],
    *,
    merge: int,
    marks: Sequence[int],
) -> list[PromptLayout]:
    """Layout of each row.

    Args:
        rows: As in `check_types`.
        positions: Likewise; they give the grids that the inputs do not.
        kinds: "image" or "video" for each visual token.
        grids: For each visual token, rows and columns of patches of each of its runs; empty if the
            inputs do not give them.
        merge: Patches along a visual token.
        marks: Tokens that stand around images.

    Raises:
        UserError: Prompts and inputs do not fit together.
    """
    found_runs = _runs(rows, kinds)
    queues: dict[int, Iterator[tuple[int, tuple[int, int]]]] = {}
    for token, kind in kinds.items():
        count = sum(run_token == token for of_row in found_runs for *_, run_token in of_row)
        edges = grids[token]
        if edges and count:
            times = repeats(len(rows), count, len(edges), f"{kind}s")
            order = _repeated(found_runs, token, times)
            queues[token] = iter([(number, edges[number]) for number in order])
        elif count and positions is None:
            raise UserError(
                f"The prompt holds {kind} tokens, but the inputs hold no {kind}: pass what the "
                "processor made of it, or take the tokens out."
            )
    layouts = []
    for row, (of_row, tokens) in enumerate(zip(found_runs, rows, strict=True)):
        images = []
        for start, length, token in of_row:
            number = 0
            if token in queues:
                number, grid = next(queues[token])
                height, width = (edge // merge for edge in grid)
            else:  # the caller's positions have the axes time, height, width
                span = positions[row][:, start : start + length]  # type: ignore[index]
                height, width = (span.amax(1) - span.amin(1) + 1).tolist()[1:]
            image = _layout(kinds[token], start, length, height, width)
            images.append(replace(image, number=number))
        markers = torch.isin(tokens, torch.tensor(marks)).nonzero()[:, 0]
        layouts.append(PromptLayout(len(tokens), tuple(images), markers))
    return layouts


def _runs(rows: Rows, tokens: Mapping[int, str] | Sequence[int]) -> Runs:
    """The runs of all visual tokens, in the order of the prompt."""
    return [sorted((*run, token) for token in tokens for run in runs(row, token)) for row in rows]


def _repeated(found_runs: Runs, token: int, times: int) -> list[int]:
    """Number of the image of each run of a token, where each row is repeated `times` times."""
    order: list[int] = []
    start = 0
    for of_row in found_runs[::times]:
        count = sum(run_token == token for *_, run_token in of_row)
        order += list(range(start, start + count)) * times
        start += count
    return order


def is_frame(image: ImageLayout) -> bool:
    """Whether visual tokens belong to a video."""
    return image.grids[0].kind == "frame"


def _layout(kind: str, start: int, length: int, rows: int, columns: int) -> ImageLayout:
    """A run of visual tokens: an image, or the frames of a video."""
    size = rows * columns
    if not size or length % size or (kind == "image" and length != size):
        raise UserError(
            f"Each run of image tokens must be one whole image; got {length} tokens for a grid of "
            f"{rows} x {columns}: give one image for each placeholder, and the whole prompt at "
            "once."
        )
    if kind == "image":
        return ImageLayout((Grid(start, rows, columns),))
    frames = range(start, start + length, size)
    return ImageLayout(tuple(Grid(frame, rows, columns, "frame") for frame in frames))
