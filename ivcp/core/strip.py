"""Videos in records and overlays: frames joined to one layout, of which a few are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from ivcp.core.layout import ImageLayout
from ivcp.core.video import Clip

MOMENTS = 8
"""Most moments of a strip."""


def drawn_moments(layout: ImageLayout) -> list[int]:
    """Indices of the grids that are drawn: all, but of a long video a few evenly spaced ones.

    The first and the last moment are among them.
    """
    count = len(layout.grids)
    if count <= MOMENTS or layout.grids[0].kind != "frame":
        return list(range(count))
    return [round(number * (count - 1) / (MOMENTS - 1)) for number in range(MOMENTS)]


def strip_of(layout: ImageLayout, moments: list[int]) -> ImageLayout:
    """The layout of some moments of a video."""
    return ImageLayout(tuple(layout.grids[moment] for moment in moments), layout.number)


def strip_parts(
    layout: ImageLayout, clip: Clip
) -> tuple[list[Image.Image], ImageLayout, list[str]]:
    """What is drawn of a video: the first frame of each drawn moment, their layout, their times."""
    moments = drawn_moments(layout)
    step = -(-len(clip.frames) // len(layout.grids))  # frames of a moment; the last may have fewer
    labels = [f"{moment + 1} at {clip.times[moment * step]:.1f} s" for moment in moments]
    images = [clip.image(moment * step) for moment in moments]
    return images, strip_of(layout, moments), labels


def joined_frames(images: Sequence[ImageLayout], frames: Sequence[int]) -> list[ImageLayout]:
    """The images of a prompt, the frames of each video joined to one layout.

    Args:
        images: The frames of videos, each an image, then other images.
        frames: Number of frames of each video.
    """
    remaining, videos = list(images), []
    for count in frames:
        of_video, remaining = remaining[:count], remaining[count:]
        grids = [replace(grid, kind="frame") for image in of_video for grid in image.grids]
        videos.append(ImageLayout(tuple(grids), of_video[0].number))
    return [*videos, *remaining]
