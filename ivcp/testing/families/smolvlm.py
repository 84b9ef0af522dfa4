"""SmolVLM2, with 3 x 3 patches a token as its largest model has."""

from __future__ import annotations

from dataclasses import replace

import torch

from ivcp.models.smolvlm import BEGINS, GOES_ON, SmolVLM, frame_mask
from ivcp.models.smolvlm import IMAGE as SHOWS_IMAGE
from ivcp.testing.families import idefics3
from ivcp.testing.small import Draw, ImagePrompt

EDGE = 36


def image(shape: tuple[int, int], draw: Draw) -> ImagePrompt:
    """An image of `shape` tiles and its global view, 3 x 3 tokens each."""
    made = idefics3.image(shape, draw, edge=EDGE)
    views = len(made.inputs["pixel_values"])
    mask = frame_mask([SHOWS_IMAGE] * views, EDGE)
    return made._replace(inputs={**made.inputs, "pixel_attention_mask": mask})


def video(frames: int, _rows: int, _columns: int, draw: Draw) -> ImagePrompt:
    """Frames of 3 x 3 tokens, each behind its time."""
    ids: list[int] = []
    tokens: list[int] = []
    for frame in range(frames):
        view, visual = idefics3.views((1, 1), 3)
        ids += [idefics3.NEWLINE, 40, 41 + frame]
        tokens += [len(ids) + index for index in visual]
        ids += view
    mask = frame_mask([BEGINS] + [GOES_ON] * (frames - 1), EDGE)
    inputs = {"pixel_values": draw(frames, 1, 3, EDGE, EDGE), "pixel_attention_mask": mask}
    return ImagePrompt(ids, torch.tensor(tokens), inputs)


FAMILY = replace(
    idefics3.FAMILY,
    family=SmolVLM,
    settings={
        **idefics3.FAMILY.settings,
        "vision_config": {**idefics3.FAMILY.settings["vision_config"], "image_size": EDGE},
        "scale_factor": 3,
    },
    image=image,
    video=video,
)
