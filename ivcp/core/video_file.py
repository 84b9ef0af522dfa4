"""Frames of a video file, read by PyAV without decoding what is not asked for."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ivcp.core.pixels import MAX_PIXELS

TOLERANCE = 0.5
"""Seconds at the end of a clip that may hold no picture, as where a last packet is a filler."""
MISSING = 1.0
"""Seconds by which frames may end before the length that a file states."""


Stamped: TypeAlias = tuple[int, Any]
"""A decoded frame behind its time stamp."""


class VideoFile:
    """The first video stream of a file that is no cover image.

    Its packets are listed once, which decodes nothing: containers count frames wrongly or not at
    all, and the times of frames may be uneven.

    Bare streams have no times, and AVI files none that can be trusted where frames are reordered:
    their frames are counted, by decoding from the beginning, and evenly spaced.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be opened, has no video with frames, or is cut off.
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._av = path, _import_av()
        durations: dict[int, int] = {}  # of each frame, by its time stamp
        keys: list[tuple[int, int]] = []  # time stamp of each keyframe, and when it is decoded
        slots: list[int] = []  # when each frame is decoded
        count, cut, self._timed = 0, False, True
        with self._stream("opened") as (container, stream):
            for packet in container.demux(stream):
                cut = packet.is_corrupt if packet.size else cut
                if packet.size and not packet.is_discard:
                    count += 1
                    if packet.dts is not None:
                        slots.append(packet.dts)
                    if packet.pts is None:
                        self._timed = False
                        continue
                    durations[packet.pts] = packet.duration or 0
                    if packet.is_keyframe:
                        keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
            base, stated = float(stream.time_base), _stated_seconds(container, stream)
            if container.format.name == "avi" and stream.codec_context.has_b_frames:
                self._timed = False
            frame = 1 / float(stream.average_rate or stream.guessed_rate or 25) / base
        if not count:
            raise OSError(f"Expected a video with frames; {path.name} has none.")
        shown: Sequence[float] = sorted(durations)
        if not self._timed:  # frames are shown in the order and rhythm in which they are decoded
            shown = sorted(slots) if len(slots) == count else [n * frame for n in range(count)]
            durations, keys = dict.fromkeys(range(count), 0), []
        self.stamps, self.keys = sorted(durations), sorted(keys)
        start, last = shown[0], shown[-1]
        mean = (last - start) / (len(shown) - 1) if len(shown) > 1 else frame
        length = durations[self.stamps[-1]] or mean
        self.times: Sequence[float] = [(stamp - start) * base for stamp in shown]
        self.end = max((last + length - start) * base, self.times[-1] + 1e-3)
        self._tolerance = TOLERANCE / base / (1 if self._timed else frame)
        end = max(self.end, (last + length) * base)  # some files count from before their start
        if cut or end < stated - MISSING:
            raise OSError(
                f"{path.name} is cut off or damaged: its frames end at second {end:g}"
                + (f" of {stated:g}." if end < stated else ".")
            )

    @contextmanager
    def _stream(self, action: str) -> Iterator[tuple[Any, Any]]:
        """The open file and its video.

        Args:
            action: What is done, for the message.

        Raises:
            OSError: It is no video, or FFmpeg fails at it.
        """
        name = self.path.name
        try:
            # FFmpeg takes what precedes a colon for a protocol, unless the path is absolute
            with self._av.open(str(self.path.absolute())) as container:
                covers = self._av.stream.Disposition.attached_pic
                streams = [
                    stream for stream in container.streams.video if not stream.disposition & covers
                ]
                if not streams:
                    raise OSError(f"Expected a video; {name} has no video stream.")
                if streams[0].codec_context is None:
                    raise OSError(f"{name} has a video of a kind that PyAV cannot decode.")
                if streams[0].width * streams[0].height > MAX_PIXELS:
                    raise OSError(
                        f"Expected frames of at most {MAX_PIXELS:,} pixels; {name} has frames of "
                        f"{streams[0].width} x {streams[0].height}."
                    )
                yield container, streams[0]
        except self._av.FFmpegError as error:
            raise OSError(f"Expected a video; {name} cannot be {action}: {error}") from error

    def read(self, indices: Sequence[int], resize: Callable[[Tensor], Tensor]) -> Tensor:
        """As `FrameSource.read`; frames are turned as the file says."""
        frames: Tensor | None = None
        count = 0
        for frame in self._at([self.stamps[index] for index in indices]):
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            turned = torch.rot90(pixels, round(frame.rotation / 90) % 4, (0, 1))
            resized = resize(turned.permute(2, 0, 1))
            if frames is None:
                frames = resized.new_empty((len(indices), *resized.shape))
            frames[count] = resized
            count += 1
        if frames is None or count < len(indices):
            raise OSError(
                f"{self.path.name} is cut off or damaged: {count} of the {len(indices)} chosen "
                "frames can be decoded."
            )
        return frames

    def _at(self, wanted: Sequence[int]) -> Iterator[Any]:
        """For each wanted time stamp, ascending, the frame that is visible then.

        Ends early if a stamp has no frame nearby, as in a file that is cut off.
        """
        with self._stream("decoded") as (container, stream):
            decoded = self._decoded(container, stream, set(wanted))
            current: Stamped | None = None
            following = next(decoded, None)
            for stamp in wanted:
                key = bisect_right(self.keys, stamp, key=itemgetter(0)) - 1
                reached = following or current
                if key >= 0 and (reached is None or self.keys[key][0] > reached[0]):
                    current = None
                    # some containers seek by times of decoding, and may end behind the frame
                    earlier = self.keys[max(key - 3, 0) : key + 1][::-1]
                    for start in (self.keys[key][0], *(decoding for _, decoding in earlier)):
                        container.seek(start, stream=stream)
                        decoded = self._decoded(container, stream, set(wanted))
                        following = next(decoded, None)
                        if following is not None and following[0] <= stamp:
                            break
                while following is not None and following[0] <= stamp:
                    current, following = following, next(decoded, None)
                nearest = current or following
                at_end = current is None or following is None
                if nearest is None or (at_end and abs(nearest[0] - stamp) > self._tolerance):
                    return
                yield nearest[1]

    def _decoded(self, container: Any, stream: Any, wanted: set[int]) -> Iterator[Stamped]:
        """Decoded frames behind their time stamps, without some of those that are not wanted.

        Frames to which no other refers are left out: that is half of them in many files.
        """
        if not self._timed:
            yield from enumerate(container.decode(stream))
            return
        context = stream.codec_context
        for packet in container.demux(stream):
            needed = packet.pts is None or packet.pts in wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in packet.decode():
                if frame.pts is not None:
                    yield frame.pts, frame


def _stated_seconds(container: Any, stream: Any) -> float:
    """How long the video lasts, as the file states it; 0 where it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # muxers of Matroska write 00:01:02.500000000
    text = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if text:
        return 3600 * int(text[1]) + 60 * int(text[2]) + float(text[3])
    alone = len(container.streams) == 1  # sound may last longer
    return container.duration / 1e6 if alone and container.duration else 0.0


def _import_av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Videos are read with PyAV, which is not installed: pip install 'ivcp[video]'."
        ) from error
    return av
