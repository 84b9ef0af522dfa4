"""Clips whose frames show their numbers, in the containers and with the damages of real ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

WIDTH, HEIGHT, BITS = 320, 64, 8
RATE = 10  # frames a second


def picture(number: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) A number as bars, one a bit."""
    pixels = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            pixels[:, 40 * bit : 40 * bit + 32] = 220
    return pixels


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers that (N, 3, HEIGHT, WIDTH) frames show."""
    bars = frames[:, 0, HEIGHT // 2, 16::40] > 128
    return [sum(1 << bit for bit in range(BITS) if bars[row, bit]) for row in range(len(frames))]


def write_clip(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 60,
    gop: int | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    time: Callable[[int], float] = lambda number: number / RATE,
    b_frames: int | None = None,
    draw: Callable[[int], np.ndarray] = picture,
) -> Path:
    """A clip.

    Args:
        path: Its suffix names the container.
        codec: An encoder of FFmpeg.
        frames: Number of frames.
        gop: Frames from one keyframe to the next.
        options: Of the encoder.
        container_options: Of the container.
        time: Second at which a frame is shown.
        b_frames: Most frames in sequence that refer to later ones.
        draw: Pixels of a frame.
    """
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        height, width = draw(0).shape[:2]
        stream: Any = container.add_stream(codec, rate=RATE, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE if path.suffix == ".avi" else 1000)
        if gop is not None:
            stream.gop_size = gop
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        container.start_encoding()
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time(number) / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, degrees: int) -> None:
    """Write into an mp4 that players turn it clockwise, as phones do.

    The matrix (a, b, c, d) of a track's header maps x to a x + c y and y to b x + d y, with y
    downwards (ISO/IEC 14496-12, 8.3.2).
    """
    data = path.read_bytes()
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one = 1 << 16
    matrix = struct.pack(
        ">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30
    )
    start = data.index(b"tkhd") + 4 + 40  # version and flags, times, ids, layer, volume
    path.write_bytes(data[:start] + matrix + data[start + 36 :])
