"""Frames come from files at the times that the file names, whatever its container."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ivcp.core.video import Video

WIDTH, HEIGHT, BITS = 320, 64, 8


def write(path: Path, *, codec: str, frames: int = 60, gop: int | None = None) -> Path:
    """A clip of 10 frames a second, whose frames show their numbers as bars, one a bit."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if gop:
            stream.gop_size = gop
        for number in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
            for bit in range(BITS):
                if number >> bit & 1:
                    pixels[:, 40 * bit : 40 * bit + 32] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(frames: torch.Tensor) -> list[int]:
    bars = frames[:, 0, HEIGHT // 2, 16::40] > 128
    return [sum(1 << bit for bit in range(BITS) if bars[row, bit]) for row in range(len(frames))]


@pytest.mark.parametrize(
    ("name", "codec", "gop"),
    [
        ("a.mp4", "libx264", None), ("a.mp4", "libx264", 7), ("a.mkv", "libx264", 12),
        ("a.webm", "libvpx", None), ("a.webm", "libvpx-vp9", 12), ("a.avi", "mpeg4", 5),
    ],
)  # fmt: skip
def test_any_frame_of_any_container_is_found(tmp_path, name, codec, gop):
    path = write(tmp_path / name, codec=codec, gop=gop)
    wanted = [0, 1, 5, 6, 7, 29, 30, 44, 58, 59]
    clip = Video(path=path).read(lambda total, rate: wanted)
    assert numbers(clip.frames) == wanted
    assert clip.times == pytest.approx([number / 10 for number in wanted], abs=2e-3)
    assert clip.duration == pytest.approx(6.0, abs=0.11)


def test_a_part_of_a_clip_has_its_own_frames_and_times(tmp_path):
    path = write(tmp_path / "a.mp4", codec="libx264")
    seen = []

    def choose(total, rate):
        seen.append((total, rate))
        return [0, total - 1]

    clip = Video(path=path, start=2.0, stop=3.0).read(choose, lambda n, w, h: (w // 2, h // 2))
    assert clip.frames.shape == (2, 3, HEIGHT // 2, WIDTH // 2)
    assert clip.times == pytest.approx([0.0, 0.9])
    assert seen == [(10, pytest.approx(10.0))]
