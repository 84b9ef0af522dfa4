"""Frames come from files at the times that the file names, whatever its container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from made_clips import HEIGHT, RATE, WIDTH, numbers, picture, turn, write_clip, write_sound
from PIL import Image

from ivcp.core.video import Clip, Video

WANTED = [0, 1, 5, 6, 7, 29, 30, 44, 58, 59]


def read(path: Path, wanted: list[int], **part: Any) -> Clip:
    return Video(path=path, **part).read(lambda total, rate: wanted)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}), ("a.mp4", "libx264", {"gop": 7}), ("a.mkv", "libx264", {}),
        ("a.mp4", "libx264", {"gop": 2, "b_frames": 1}), ("a.mp4", "libx265", {"gop": 12}),
        ("a.mp4", "libx264", {"gop": 12, "options": {"x264-params": "open-gop=1"}}),
        ("a.ts", "libx264", {"gop": 12}), ("a.flv", "libx264", {"gop": 12}),
        ("a.webm", "libvpx", {}), ("a.webm", "libvpx-vp9", {"gop": 12}),
        ("a.avi", "mpeg4", {"gop": 5}), ("a.avi", "mpeg4", {"gop": 12, "b_frames": 2}),
        ("a.avi", "libx264", {"gop": 12}),  # its packets have no times of their frames
    ],
)  # fmt: skip
def test_any_frame_of_any_container_is_found(tmp_path, name, codec, options) -> None:
    path = write_clip(tmp_path / name, codec, **options)
    clip = read(path, WANTED)
    assert numbers(clip.frames) == WANTED
    assert clip.times == pytest.approx([number / RATE for number in WANTED], abs=2e-3)
    assert clip.duration == pytest.approx(6.0, abs=0.01)
    assert clip.size == (WIDTH, HEIGHT)


def test_an_avi_that_skips_frames_keeps_their_times(tmp_path) -> None:
    def time(number: int) -> float:
        return number / RATE + 2 * (number >= 30)

    # x264 reorders frames, so that the file's own times of them are wrong
    wanted = [0, 1, 5, 25, 35, 44, 58, 59]
    clip = read(write_clip(tmp_path / "a.avi", gop=12, time=time), wanted)
    assert numbers(clip.frames) == wanted
    assert clip.times == pytest.approx(list(map(time, wanted)), abs=0.01)
    assert clip.duration == pytest.approx(8.0, abs=0.2)


def test_a_frame_may_be_wanted_twice(tmp_path) -> None:
    wanted = [0, 0, 3, 3, 3, 59, 59]
    assert numbers(read(write_clip(tmp_path / "a.mp4", gop=4), wanted).frames) == wanted


def test_a_bare_stream_is_counted(tmp_path) -> None:
    path = write_clip(tmp_path / "a.h264", gop=12)
    with av.open(str(path)) as container:
        assert {packet.pts for packet in container.demux(video=0)} == {None}
    clip = read(path, WANTED)
    assert numbers(clip.frames) == WANTED
    assert np.diff(clip.times) == pytest.approx(np.diff(WANTED) / 25)  # what FFmpeg assumes


def test_a_part_of_a_clip_has_its_own_frames_and_times(tmp_path) -> None:
    path, calls = write_clip(tmp_path / "a.mp4"), []

    def choose(total: int, rate: float) -> list[int]:
        calls.append((total, rate))
        return [0, total - 1]

    clip = Video(path=path, start=2.0, stop=3.0).read(choose, lambda n, w, h: (w // 2, h // 2))
    assert clip.frames.shape == (2, 3, HEIGHT // 2, WIDTH // 2)
    assert clip.times == pytest.approx([0.0, 0.9])
    assert calls == [(10, pytest.approx(10.0))]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_times_are_those_of_the_file(tmp_path, suffix) -> None:
    clip = read(write_clip(tmp_path / f"a.{suffix}", time=lambda n: n * n / 100), WANTED)
    assert numbers(clip.frames) == WANTED
    assert clip.times == pytest.approx([n * n / 100 for n in WANTED], abs=2e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_begin_with_the_clip(tmp_path, suffix) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", time=lambda n: 5 + n / RATE)
    clip = read(path, WANTED)
    assert numbers(clip.frames) == WANTED
    assert clip.times == pytest.approx([n / RATE for n in WANTED], abs=2e-3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_clip_comes_out_upright(tmp_path, degrees) -> None:
    # as a phone stores it: the sensor's rows, and that players turn them clockwise
    path = write_clip(tmp_path / "a.mp4", draw=lambda n: np.rot90(picture(n), degrees // 90))
    turn(path, degrees)
    clip = read(path, [3, 41])
    assert numbers(clip.frames) == [3, 41]
    assert clip.size == (WIDTH, HEIGHT)


def test_one_frame_is_a_clip(tmp_path) -> None:
    clip = read(write_clip(tmp_path / "a.mp4", frames=1), [0])
    assert (numbers(clip.frames), clip.times) == ([0], (0.0,))
    assert clip.duration == pytest.approx(1 / RATE)


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch) -> None:
    write_clip(tmp_path / "a.mp4").rename(tmp_path / "http:a.mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers(read(Path("http:a.mp4"), [9]).frames) == [9]


def cut_off(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


def cover_only(path: Path) -> Path:
    """Sound with a cover image, which FFmpeg lists as a video."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        cover: Any = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24")
        container.mux([*cover.encode(frame), *cover.encode()])
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = 16000
        container.mux([*sound.encode(silence), *sound.encode()])
    return path


def flipped(path: Path) -> Path:
    """Bits in the middle of the pictures are wrong."""
    data = bytearray(path.read_bytes())
    for index in range(len(data) // 2, len(data) // 2 + 200):
        data[index] ^= 0x5A
    path.write_bytes(bytes(data))
    return path


def text(path: Path) -> Path:
    path.write_text("not found")
    return path


FAST = {"container_options": {"movflags": "+faststart"}, "gop": 12}
BAD = {
    "absent": (lambda folder: folder / "a.mp4", "No such file"),
    "a text": (lambda folder: text(folder / "a.mp4"), "Expected a video; a.mp4 cannot be opened"),
    "sound": (lambda folder: write_sound(folder / "a.mp4"), "a.mp4 has no video stream"),
    "a cover": (lambda folder: cover_only(folder / "a.mp4"), "a.mp4 has no video stream"),
    "no frame": (lambda folder: write_clip(folder / "a.mp4", frames=0), "a.mp4 has no"),
    "mp4 without index": (lambda folder: cut_off(write_clip(folder / "a.mp4"), 0.6), "a.mp4 can"),
    "mp4": (
        lambda folder: cut_off(write_clip(folder / "a.mp4", **FAST), 0.7),
        r"a.mp4 is cut off or damaged: its frames end at second [\d.]+ of 6\.",
    ),
    "mkv": (
        lambda folder: cut_off(write_clip(folder / "a.mkv"), 0.6),
        r"a.mkv is cut off or damaged: its frames end at second [\d.]+ of 6\.",
    ),
    "webm": (
        lambda folder: cut_off(write_clip(folder / "a.webm", "libvpx-vp9"), 0.6), "a.webm is cut"
    ),
    "bits": (lambda folder: flipped(write_clip(folder / "a.mp4", **FAST)), "cannot be decoded"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name) -> None:
    make, message = BAD[name]
    with pytest.raises(OSError, match=message):
        read(make(tmp_path), list(range(0, 60, 3)))


def test_frames_of_too_many_pixels_are_not_decoded(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ivcp.core.video_file.MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(OSError, match=r"at most 20,479 pixels; a\.mp4 has frames of 320 x 64"):
        read(write_clip(tmp_path / "a.mp4"), [0])


@pytest.mark.parametrize(
    ("part", "message"),
    [({"start": 6.5}, "from second 6.5 to 6 of"), ({"start": 3, "stop": 2}, "second 3 to 2 of")],
)
def test_a_part_without_frames_is_refused(tmp_path, part, message) -> None:
    with pytest.raises(OSError, match=message):
        read(write_clip(tmp_path / "a.mp4"), [0], **part)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((0.0, 2.0, 1.0), "ascending order"), ((0.0, 0.0, 1.0), "ascending order"),
        ((0.0, float("nan"), 1.0), "ascending order"), ((0.0, 1.0), "2 times for 3 frames"),
    ],
)  # fmt: skip
def test_times_out_of_order_are_refused(times, message) -> None:
    frames = (Image.new("RGB", (4, 4)),) * 3
    with pytest.raises(OSError, match=message):
        Video(frames=frames, times=times).read(lambda total, rate: [0])
    with pytest.raises(OSError, match="it has 0 frames"):
        Video().read(lambda total, rate: [0])


def test_frames_of_another_size_get_that_of_the_first() -> None:
    frames = tuple(Image.new("RGB", size, "red") for size in ((8, 4), (16, 16)))
    clip = Video(frames=frames, times=(0.0, 1.0)).read(lambda total, rate: [0, 1])
    assert clip.frames.shape == (2, 3, 4, 8)
    assert torch.equal(clip.frames[0], clip.frames[1])


def test_a_folder_of_images_is_a_clip(tmp_path) -> None:
    for number in range(12):
        Image.fromarray(picture(number)).save(tmp_path / f"{number:05d}.png")
    clip = read(tmp_path, [0, 9, 11], rate=3.0)
    assert numbers(clip.frames) == [0, 9, 11]
    assert (clip.times, clip.duration) == ((0.0, 3.0, pytest.approx(11 / 3)), pytest.approx(4.0))
    with pytest.raises(OSError, match=r"12 images in .* at a rate of None"):
        read(tmp_path, [0])
    (tmp_path / "00009.png").write_bytes(b"")
    with pytest.raises(OSError, match="format"):
        read(tmp_path, [0, 9], rate=3.0)
