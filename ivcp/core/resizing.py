"""Encoding for methods that change the sizes of images before they are processed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.family import Encoded, ModelFamily
from ivcp.core.pruner import Pruner, Size
from ivcp.core.types import Sample


def encode_for(
    pruner: Pruner | None, family: ModelFamily, processor: Any, samples: Sequence[Sample]
) -> Encoded:
    """`family.encode`, of images in the sizes that the pruner wants, if there is one.

    Boxes come back to pixels of the original images, and areas are fractions of any size.

    Raises:
        UserError: No size of an image gives what the pruner wants, the family makes other numbers
            of tokens than it foretells, or as `encode` does.
    """
    if not isinstance(pruner, Pruner) or not pruner.before_processor:
        return family.encode(processor, samples)

    if any(sample.videos for sample in samples):
        raise UserError(
            f"{pruner.name} resizes images, and a sample holds a video: use another pruner."
        )

    def count(sizes: Sequence[Size]) -> float:
        return family.expected_tokens(processor, sizes) if sizes else 0

    resized, saved, foretold = [], [], []
    for sample in samples:
        sizes = [image.size for image in sample.images]
        wanted = pruner.image_sizes(sizes, count)
        foretold.append(round(count(wanted)))
        saved.append(round(count(sizes)) - foretold[-1])
        pairs = zip(sample.images, wanted, strict=True)
        images = tuple(
            image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
            for image, size in pairs
        )
        resized.append(replace(sample, images=images))
    encoded = family.encode(processor, resized)
    found_tokens = encoded.image_tokens or foretold
    for sample, expected, found in zip(samples, foretold, found_tokens, strict=True):
        if found != expected:
            raise UserError(
                f"{pruner.name} needs to know how many visual tokens an image gives, but "
                f"the model has a rule of its own for images of {sample.benchmark or sample.id}: "
                "use another pruner, dataset or model."
            )
    frames = []
    for sample, frame in zip(samples, encoded.box_frames, strict=True):
        if sample.images:
            width, height = sample.images[-1].size
            frame = replace(frame, image_width=width, image_height=height)
        frames.append(frame)
    return replace(encoded, box_frames=frames, saved_tokens=saved)
