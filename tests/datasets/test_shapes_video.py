"""The videos: what is right is read off their pixels, which are the same but for what happens."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.datasets.scenes import COLORS, SHAPES, SIDE, make_scene
from ivcp.datasets.shapes_video import KINDS, ShapesVideo

LOOK = re.compile(r"the (\w+) (\w+)")


@cache
def samples(kind: str, size: int = 36) -> list[Sample]:
    data = ShapesVideo(kind=kind, size=size)  # type: ignore[arg-type]
    return [data[index] for index in range(size)]


def pixels(sample: Sample) -> np.ndarray:
    """(frames, SIDE, SIDE, 3) values."""
    (video,) = sample.videos
    return np.stack([np.asarray(frame).astype(int) for frame in video.frames])


def right(sample: Sample) -> str:
    return sample.options["ABCD".index(str(sample.answer))]


def places(frames: np.ndarray, color: str) -> list[np.ndarray]:
    """x and y of the middle of what moves, frame by frame.

    A pixel that changes has two values, one where the object is and one where it is not; which is
    which its colour tells.
    """
    changed = (frames != frames[:1]).any((0, 3))  # background and noise stay as they are
    distance = np.abs(frames - COLORS[color]).max(-1)
    found = []
    for mask in (distance == distance.min(0)) & changed:
        rows, columns = np.nonzero(mask)
        edges = [np.percentile(values, (1, 99)) for values in (columns, rows)]
        found.append(np.array(edges).mean(1))
    return found


def components(mask: np.ndarray) -> int:
    """Number of groups of pixels that are at most two pixels apart."""
    left, groups = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}, 0
    while left:
        groups += 1
        edge = [left.pop()]
        while edge:
            row, column = edge.pop()
            near = {(row + y, column + x) for y in range(-2, 3) for x in range(-2, 3)} & left
            left -= near
            edge += near
    return groups


def test_what_moves_is_where_pixels_change() -> None:
    for sample in samples("moved"):
        found = LOOK.fullmatch(right(sample))
        assert found
        begin, *_, middle, _, _, end = places(pixels(sample), found.group(1))
        assert np.hypot(*(end - begin)) > 40
        assert np.abs(middle - begin - 4 / 7 * (end - begin)).max() < 4
        assert sample.question == "Which object moves in the video?"
        assert len(set(sample.options)) == 4
        assert all(LOOK.fullmatch(option) for option in sample.options)


def test_the_moving_object_is_where_the_answer_says() -> None:
    seconds: Counter[int] = Counter()
    for sample in samples("position"):
        found = re.fullmatch(r"Where is the (\w+) (\w+) at second (\d)\?", sample.question)
        assert found
        assert found.group(2) in SHAPES
        second, path = int(found.group(3)), places(pixels(sample), found.group(1))
        for frame in (2 * second, 2 * second + 1):  # two frames a second
            x, y = path[frame]
            vertical, horizontal = right(sample).split()
            assert (y < SIDE / 2) == (vertical == "top")
            assert (x < SIDE / 2) == (horizontal == "left")
        seconds[second] += 1
        assert sorted(sample.options) == ["bottom left", "bottom right", "top left", "top right"]
    assert set(seconds) == {0, 1, 2, 3}


def test_as_many_appear_as_the_answer_says() -> None:
    counts: Counter[int] = Counter()
    for sample in samples("appeared"):
        frames = pixels(sample)
        assert components((frames[0] != frames[-1]).any(-1)) == int(right(sample))
        assert len(set(sample.options)) == 4
        for earlier, later in pairwise(frames):  # what is there stays
            new = (earlier != later).any(-1)
            assert not (new & (earlier != frames[0]).any(-1)).any()
        counts[int(right(sample))] += 1
    assert set(counts) >= {0, 1, 2, 3}


def test_kinds_take_turns_and_letters_are_balanced() -> None:
    data = ShapesVideo(size=120)
    drawn = [data[index] for index in range(120)]
    assert Counter(sample.labels["category"] for sample in drawn) == dict.fromkeys(KINDS, 40)
    letters = Counter(str(sample.answer) for sample in drawn)
    assert set(letters) == set("ABCD")
    assert min(letters.values()) > 17
    assert len({sample.id for sample in drawn}) == 120


def test_times_and_settings() -> None:
    (video,) = ShapesVideo(size=1, frames=12, fps=3)[0].videos
    assert len(video.frames) == 12
    assert video.times == pytest.approx([frame / 3 for frame in range(12)])
    assert ShapesVideo(size=4)[2] == ShapesVideo(size=9)[2], "the same pixels every time"
    assert ShapesVideo(size=4)[2] != ShapesVideo(size=4, seed=1)[2]
    for fields in ({"frames": 3}, {"frames": 65}, {"fps": 0.5}, {"fps": 4.5}):
        with pytest.raises(UserError, match=r"dataset\.frames must be 4 to 64"):
            ShapesVideo(**fields)
    with pytest.raises(UserError, match="task must be one of multiple_choice; got 'grounding'"):
        ShapesVideo(task="grounding")
    with pytest.raises(UserError, match=r"dataset\.kind must be"):
        ShapesVideo(kind="speed")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="0 to 3"):
        ShapesVideo(size=4)[4]


def test_still_scenes_are_as_before() -> None:
    scene = make_scene(0, "test", 5)
    moment = list(scene.objects)
    assert scene.render(moment).tobytes() == scene.render().tobytes()
