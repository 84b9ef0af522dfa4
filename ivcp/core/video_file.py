"""Frames of a video file, read by PyAV without decoding what is not asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class VideoFile:
    """The first video stream of a file.

    Its packets are listed once, which decodes nothing: containers count frames wrongly or not at
    all, and the times of frames may be uneven.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be opened, or has no video with frames.
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._av = path, _import_av()
        with self._open() as container:
            stream = container.streams.video[0]
            self.base: Fraction = stream.time_base
            stamps, keys, last = [], [], 0
            try:
                for packet in container.demux(stream):
                    stamp = packet.dts if packet.pts is None else packet.pts
                    if packet.size and stamp is not None and not packet.is_discard:
                        stamps.append(stamp)
                        last = max(last, stamp + (packet.duration or 0))
                        if packet.is_keyframe:
                            keys.append(stamp)
            except self._av.FFmpegError as error:
                raise OSError(f"{path.name} cannot be read: {error}") from error
        self.stamps, self.keys = sorted(set(stamps)), sorted(keys)
        if not self.stamps:
            raise OSError(f"Expected a video with frames; {path.name} has none.")
        start = self.stamps[0]
        self.times: Sequence[float] = [float((stamp - start) * self.base) for stamp in self.stamps]
        length = len(self.stamps)
        mean = self.times[-1] / (length - 1) if length > 1 else 1.0
        self.end = max(float((last - start) * self.base), self.times[-1] + min(mean, 1e-3))

    def _open(self) -> Any:
        try:
            container = self._av.open(str(self.path))
        except self._av.FFmpegError as error:
            raise OSError(
                f"Expected a video; {self.path.name} cannot be opened: {error}"
            ) from error
        if not container.streams.video:
            container.close()
            raise OSError(f"Expected a video; {self.path.name} has no video stream.")
        return container

    def read(self, indices: Sequence[int], resize: Callable[[Tensor], Tensor]) -> Tensor:
        """As `FrameSource.read`; frames are turned as the file says."""
        wanted = [self.stamps[index] for index in indices]
        frames: list[Tensor] = []
        with self._open() as container:
            try:
                for frame in self._at(container, wanted):
                    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                    turned = torch.rot90(pixels, round(frame.rotation / 90) % 4, (0, 1))
                    frames.append(resize(turned.permute(2, 0, 1)))
            except self._av.FFmpegError as error:
                raise OSError(
                    f"{self.path.name} cannot be decoded behind frame {len(frames)} of the "
                    f"{len(indices)} that were asked for: {error}"
                ) from error
        if len(frames) < len(indices):
            raise OSError(
                f"{self.path.name} ends early: {len(frames)} of {len(indices)} frames could be "
                "decoded."
            )
        return torch.stack(frames)

    def _at(self, container: Any, wanted: Sequence[int]) -> Iterator[Any]:
        """For each wanted time stamp, ascending, the frame that is shown then."""
        stream = container.streams.video[0]
        decoded: Iterator[Any] = iter(())
        shown = following = None
        position = self.stamps[0] - 1  # up to which frames were decoded
        for stamp in wanted:
            key = self.keys[max(bisect_right(self.keys, stamp) - 1, 0)] if self.keys else None
            if following is None or (key is not None and key > position):
                container.seek(self.stamps[0] if key is None else key, stream=stream)
                decoded, shown, following = container.decode(stream), None, None
            while following is None or following.pts <= stamp:
                if following is not None:
                    shown = following
                    position = shown.pts
                following = next(decoded, None)
                if following is None:
                    break
            if shown is None:
                return
            yield shown


def _import_av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Videos are read with PyAV, which is not installed: pip install 'ivcp[video]'."
        ) from error
    return av
