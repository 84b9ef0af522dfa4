"""The small families that are installed, and prompts for their models."""

from __future__ import annotations

import pkgutil
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.testing import families
from ivcp.testing.small import PAD, ImagePrompt, SmallFamily, token_types

GROUP = "ivcp.testing"
"""Group of entry points under which other packages name the `SmallFamily` of their family."""


def small_families() -> dict[str, SmallFamily]:
    """Every family by the stem of its module, then those of other packages by their entry points.

    Raises:
        UserError: An entry point names something else.
    """
    names = [module.name for module in pkgutil.iter_modules(families.__path__)]
    own = {name: import_module(f"{families.__name__}.{name}").FAMILY for name in names}
    others = {point.name: point.load() for point in entry_points(group=GROUP)}
    for name, other in others.items():
        if not isinstance(other, SmallFamily):
            raise UserError(
                f"The entry point {name!r} of {GROUP} must give a SmallFamily; got {other!r}."
            )
    return own | others


SMALL = small_families()
"""What `small_families` found when this module was imported."""


@dataclass
class Prompts:
    """A left-padded batch for a random model.

    Attributes:
        inputs: Keyword arguments of `generate`.
        lengths: Length of each row without padding.
        tokens: For each row, the prompt indices of each image's visual tokens, padding not counted.
        samples: What the rows were built from.
        family: Key of `SMALL`.
    """

    inputs: dict[str, Tensor]
    lengths: list[int]
    tokens: list[list[Tensor]]
    samples: tuple[list[Any], ...]
    family: str

    @property
    def spans(self) -> list[list[tuple[int, int]]]:
        """For each row, (first token, number of tokens) of each image."""
        return [[(int(image[0]), len(image)) for image in images] for images in self.tokens]


def prompts(*samples: list[Any], family: str = "qwen25vl") -> Prompts:
    """Build a batch; a sample is a list of text lengths (int) and sizes of images, in order.

    Equal samples get equal tokens and pixels in every batch.
    """
    rows: list[Tensor] = []
    tokens: list[list[Tensor]] = []
    images: list[ImagePrompt] = []
    small = SMALL[family]
    for sample in samples:
        generator = torch.Generator().manual_seed(zlib.crc32(repr(sample).encode()))

        def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=generator)

        ids: list[int] = []
        tokens.append([])
        count = sum(not isinstance(part, int) for part in sample)
        make = small.several if small.several and count > 1 else small.image
        for part in sample:
            if isinstance(part, int):
                ids += torch.randint(3, 80, (part,), generator=generator).tolist()
                continue
            image = make(part, draw)
            tokens[-1].append(image.tokens + len(ids))
            ids += image.ids
            images.append(image)
        rows.append(torch.tensor(ids))
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, True, PAD, "left")
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], True, 0, "left")
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    if small.token_types:
        inputs[small.types_name] = token_types(input_ids)
    if images:
        names = images[0].inputs
        inputs |= {name: torch.cat([image.inputs[name] for image in images]) for name in names}
        if small.several:
            counts = [len(of_sample) for of_sample in tokens if of_sample]
            inputs["batch_num_images"] = torch.tensor(counts)
    return Prompts(inputs, [len(row) for row in rows], tokens, samples, family)


def single(batch: Prompts, number: int) -> dict[str, Tensor]:
    """Inputs of one row of a batch, without padding."""
    return prompts(batch.samples[number], family=batch.family).inputs


@cache
def batch_of(family: str) -> Prompts:
    """Four rows: one image, two images, an image at the end, and no image."""
    a, b, c, d = SMALL[family].images
    return prompts([5, a, 7], [3, b, 12, c, 4], [9, d, 1], [14], family=family)


@cache
def model_of(family: str, attention: str = "sdpa") -> Any:
    """The family's random model, made once; a test must leave it as it is."""
    return SMALL[family].model(attention)
