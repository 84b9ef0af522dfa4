"""Clips: what a sample names, and the frames that a model family asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ivcp.core.pixels import decode, to_rgb

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Files of a folder that are frames of a clip."""

ChooseFrames = Callable[[int, float], Sequence[int]]
"""Ascending indices of the frames to read, from a clip's frames and its frames a second."""

FrameSize = Callable[[int, int, int], tuple[int, int]]
"""Width and height to which frames are resized, from their number and their width and height."""


class FrameSource(Protocol):
    """Where frames come from."""

    times: Sequence[float]
    """Seconds of each frame, ascending."""
    end: float
    """Second at which the last frame ends."""

    def read(self, indices: Sequence[int], resize: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, 3, H, W) resized frames, uint8.

        Args:
            indices: Ascending indices into `times`.
            resize: What is done to each (3, H, W) frame at once, so that no large ones pile up.

        Raises:
            OSError: A frame cannot be read.
        """


@dataclass(frozen=True)
class Clip:
    """Frames of a video, as a model sees them.

    Attributes:
        frames: (N, 3, H, W) RGB, uint8.
        times: Second of each frame, counted from the beginning of the part that is shown.
        duration: Seconds of the part that is shown.
        size: Width and height of the frames before they were resized.
    """

    frames: Tensor
    times: tuple[float, ...]
    duration: float
    size: tuple[int, int]

    def image(self, index: int) -> Image.Image:
        """A frame as an image, in the aspect that it had before it was resized."""
        image = Image.fromarray(self.frames[index].permute(1, 2, 0).contiguous().numpy())
        width = max(1, round(image.height * self.size[0] / self.size[1]))
        return image.resize((width, image.height), Image.Resampling.BICUBIC)


@dataclass(frozen=True, kw_only=True)
class Video:
    """A clip, or a part of it; its frames are read when a model family asks for them.

    Attributes:
        path: A file that PyAV reads, or a folder of images, one a frame, in the order of names.
        frames: Decoded frames, instead of a path.
        times: Second of each of `frames`, ascending.
        rate: Frames a second of a folder of images.
        start: Second at which the part that is shown begins.
        stop: Second at which it ends; None for the end of the clip.
    """

    path: Path | None = None
    frames: tuple[Image.Image, ...] = ()
    times: tuple[float, ...] = ()
    rate: float | None = None
    start: float = 0.0
    stop: float | None = None

    def read(self, choose: ChooseFrames, size: FrameSize | None = None) -> Clip:
        """The chosen frames.

        Args:
            choose: Chooses frames of the part that is shown.
            size: Size to which they are resized; None leaves them as they are. Frames of other
                sizes than the first one get its size.

        Raises:
            OSError: The clip is absent, has no frame in this part, or cannot be decoded.
            ModuleNotFoundError: PyAV is not installed.
        """
        source = self._source()
        stop = source.end if self.stop is None else min(self.stop, source.end)
        shown = [
            index for index, time in enumerate(source.times) if self.start - 1e-6 <= time < stop
        ]
        if not shown:
            raise OSError(
                f"Expected frames from second {self.start:g} to {stop:g} of "
                f"{self.path or 'the frames'}; it has {len(source.times)} frames up to second "
                f"{source.end:g}: check the file and the times."
            )
        duration = max(stop - source.times[shown[0]], 1e-3)
        indices = list(choose(len(shown), len(shown) / duration))

        sizes: list[tuple[int, int]] = []  # of the first frame, before and after

        def resized(frame: Tensor) -> Tensor:
            if not sizes:
                before = frame.shape[2], frame.shape[1]
                sizes.extend((before, before if size is None else size(len(indices), *before)))
            return resize_frame(frame, *sizes[1])

        frames = source.read([shown[index] for index in indices], resized)
        start = source.times[shown[0]]
        times = tuple(source.times[shown[index]] - start for index in indices)
        return Clip(frames, times, duration, sizes[0])

    def _source(self) -> FrameSource:
        if self.path is None:
            return DecodedFrames(self.frames, self.times)
        if self.path.is_dir():
            return FrameFolder(self.path, self.rate)
        from ivcp.core.video_file import VideoFile

        return VideoFile(self.path)


class DecodedFrames:
    """Frames that are in memory.

    Args:
        frames: The frames.
        times: Second of each, ascending.

    Raises:
        OSError: Their numbers differ, or the times are not in order.
    """

    def __init__(self, frames: Sequence[Image.Image], times: Sequence[float]) -> None:
        if len(frames) != len(times):
            raise OSError(
                f"Expected a time for each frame; got {len(times)} times for {len(frames)} frames."
            )
        if not all(earlier < later < math.inf for earlier, later in pairwise(times)):
            raise OSError("Expected times of frames in ascending order; sort frames and times.")
        self.frames, self.times = frames, times
        self.end = _end(times)

    def read(self, indices: Sequence[int], resize: Callable[[Tensor], Tensor]) -> Tensor:
        """As `FrameSource.read`."""
        return torch.stack([resize(_pixels(to_rgb(self.frames[index]))) for index in indices])


class FrameFolder:
    """Frames that are the images of a folder, in the order of their names.

    Args:
        folder: The folder.
        rate: Frames a second.

    Raises:
        OSError: It holds no image, or the rate is not positive.
    """

    def __init__(self, folder: Path, rate: float | None) -> None:
        self.files = sorted(
            file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES
        )
        if not self.files or rate is None or not 0 < rate < math.inf:
            raise OSError(
                f"Expected a folder of images and their frames a second; got {len(self.files)} "
                f"images in {folder} at a rate of {rate}."
            )
        self.times: Sequence[float] = [index / rate for index in range(len(self.files))]
        self.end = len(self.files) / rate

    def read(self, indices: Sequence[int], resize: Callable[[Tensor], Tensor]) -> Tensor:
        """As `FrameSource.read`."""
        return torch.stack([resize(_pixels(decode(self.files[index]))) for index in indices])


def _pixels(image: Image.Image) -> Tensor:
    """(3, H, W) pixels of an RGB image, uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _end(times: Sequence[float]) -> float:
    """Second at which the last of some frames ends: it lasts as long as the others, on average."""
    if len(times) < 2:
        return times[0] + 1.0 if times else 0.0
    return times[-1] + (times[-1] - times[0]) / (len(times) - 1)


def resize_frame(frame: Tensor, width: int, height: int) -> Tensor:
    """A frame in another size, by PyTorch's antialiased bicubic filter on 8-bit values.

    The library's video processors use the same filter, through torchvision.

    Args:
        frame: (3, H, W) uint8.
        width: New width in pixels.
        height: New height in pixels.
    """
    if tuple(frame.shape[1:]) == (height, width):
        return frame
    size = (height, width)
    return interpolate(frame[None], size, mode="bicubic", antialias=True)[0]
