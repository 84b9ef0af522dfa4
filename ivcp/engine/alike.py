"""One selection for all prompts of a batch that are laid out alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ivcp.core.pruner import Pruner
from ivcp.core.selection import Selection
from ivcp.core.transfer import to_device
from ivcp.engine.image_view import ImageView

STATES = ("states", "merged_at", "merged_states")
TOGETHER = 8
"""Most images for which scores are held at once."""


def select_batch(pruner: Pruner, samples: Sequence[Sequence[ImageView]], stage: int) -> list[Any]:
    """What a pruner answers for each sample, not yet checked.

    Args:
        pruner: The method.
        samples: The views of each sample's images.
        stage: Number of the stage.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, views in enumerate(samples):
        alike = pruner.runs_vectorized() and len(views) == 1
        groups.setdefault(_layout_of(views[0]) if alike else number, []).append(number)
    answers: list[Any] = [[] for _ in samples]
    for numbers in groups.values():
        views = samples[numbers[0]]
        if len(numbers) > 1:
            images = [samples[number][0] for number in numbers]
            for number, selection in zip(numbers, _together(pruner, images, stage), strict=True):
                answers[number] = [selection]
        elif views:
            answers[numbers[0]] = pruner.select_sample(views, stage)
    return answers


def _layout_of(view: ImageView) -> Hashable:
    """What prompts that are laid out alike have in common."""
    layout = view.sample.layout
    markers = tuple(layout.markers.tolist())
    return layout.length, layout.images, markers, len(view.sample), len(view.visual.index)


def _together(pruner: Pruner, views: Sequence[ImageView], stage: int) -> list[Selection]:
    """The selection of each image of prompts that are laid out alike, in one go."""
    first = views[0]
    inside: list[Selection] = []  # its tensors are of use under vmap alone

    def stacked(names: Sequence[str], records: Sequence[Any]) -> dict[str, Tensor]:
        return {name: torch.stack([getattr(each, name) for each in records]) for name in names}

    def select(row: Tensor, of_sample: Any, of_image: Any) -> Any:
        visual = replace(first.visual, **of_image, notes={})
        sample = replace(first.sample, **of_sample, images=[visual])
        view = ImageView(first.state, row, sample, visual, first.make_id)
        selection = pruner.select(view, stage)
        inside.append(selection)
        states = {name: getattr(selection, name) for name in STATES}
        present = {name: tensor for name, tensor in states.items() if tensor is not None}
        return selection.keep, dict(selection.reasons or {}), present

    keep, reasons, states = torch.func.vmap(select, chunk_size=TOGETHER)(
        to_device(torch.tensor([view.batch for view in views]), first.visual.index.device),
        stacked(("entry_columns", "columns", "text"), [view.sample for view in views]),
        stacked(("ranks", "index", "tokens"), [view.visual for view in views]),
    )
    form = inside[0]
    return [
        replace(
            form,
            keep=keep[row],
            reasons=form.reasons and {name: mask[row] for name, mask in reasons.items()},
            **{name: tensor[row] for name, tensor in states.items()},
        )
        for row in range(len(views))
    ]
