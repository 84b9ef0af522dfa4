"""Questions about scenes that move: which object moved, where it was, how many appeared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from ivcp.core.errors import UserError
from ivcp.core.types import Sample, Task
from ivcp.core.video import Video
from ivcp.datasets.moving_scenes import MovingScene, arrivals, moves
from ivcp.datasets.scenes import COLORS, SHAPES, SceneObject, make_scene
from ivcp.datasets.shapes import Shapes

KINDS = ("moved", "position", "appeared")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
NEXT_SCENE = 1_000_000
"""Distance to the index of the scene that is taken instead of one in which nothing can move."""


class Choice(NamedTuple):
    """A multiple-choice question.

    Attributes:
        moving: What it is about.
        text: The question.
        options: In random order.
        answer: The right one of them.
    """

    moving: MovingScene
    text: str
    options: list[str]
    answer: str


@dataclass(frozen=True, kw_only=True)
class ShapesVideo(Shapes):
    """Short videos of rendered scenes with one multiple-choice question each.

    Nothing is stored, everything follows the seed.

    Attributes:
        task: "multiple_choice".
        split: "train", "val" or "test"; no scene is in two of them.
        size: Number of samples, at least 1.
        seed: Chooses another family of scenes.
        kind: "moved" (which object moves), "position" (where it is at a second), "appeared" (how
            many objects appear), or "all" in turn.
        frames: Frames of a video, 4 to 64.
        fps: Frames a second, at least 1 and at most half of `frames`.
    """

    task: Task = "multiple_choice"
    kind: Literal["all", "moved", "position", "appeared"] = "all"
    frames: int = 8
    fps: float = 2.0

    answer_kinds: ClassVar[tuple[Task, ...]] = ("multiple_choice",)
    has_videos: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check choices and types.

        Raises:
            UserError: A field has another type, or none of its values.
        """
        super().__post_init__()
        if not 4 <= self.frames <= 64 or not 1 <= self.fps <= self.frames / 2:
            raise UserError(
                "dataset.frames must be 4 to 64, and dataset.fps at least 1 and at most half of "
                f"them; got {self.frames} and {self.fps:g}."
            )

    def made(self, index: int) -> Sample:
        kind = KINDS[index % len(KINDS)] if self.kind == "all" else self.kind
        choice = next(self._questions(index, kind))
        times = tuple(frame / self.fps for frame in range(self.frames))
        return Sample(
            id=self.sample_id(index),
            task=self.task,
            images=(),
            videos=(Video(frames=choice.moving.render(), times=times),),
            question=choice.text,
            answer="ABCD"[choice.options.index(choice.answer)],
            options=tuple(choice.options),
            labels={"category": kind},
        )

    def _questions(self, index: int, kind: str) -> Iterator[Choice]:
        """Questions of a kind; the first is taken."""
        for number in count(index, NEXT_SCENE):
            scene = make_scene(self.seed, self.split, number)
            rng = np.random.default_rng((*scene.pixel_seed, 3))
            if kind == "appeared":
                yield how_many(arrivals(scene, self.frames, rng), rng)
            for moving in moves(scene, self.frames, rng):
                if kind == "moved":
                    yield which(moving, rng)
                elif seconds := clear_seconds(moving, self.fps):
                    yield where(moving, rng, seconds)


def which(moving: MovingScene, rng: np.random.Generator) -> Choice:
    """Which object moves; wrong options are other objects, and absent ones where these are few."""
    present = [look(item) for item in moving.scene.objects]
    answer = look(moving.moved_object)
    others = sorted({text for text in present if text != answer})
    absent = [f"the {color} {shape}" for color in COLORS for shape in SHAPES]
    absent = [text for text in absent if text not in present]
    rng.shuffle(others)
    rng.shuffle(absent)
    return shuffled(moving, "Which object moves in the video?", answer, others + absent, rng)


def where(moving: MovingScene, rng: np.random.Generator, seconds: list[tuple[int, str]]) -> Choice:
    """In which quarter of the image the moving object is at a second.

    Args:
        moving: What happens.
        rng: Draws the second and the order of options.
        seconds: Seconds, each with the quarter.
    """
    second, answer = seconds[int(rng.integers(len(seconds)))]
    text = f"Where is {look(moving.moved_object)} at second {second}?"
    return shuffled(moving, text, answer, [name for name in QUADRANTS if name != answer], rng)


def how_many(moving: MovingScene, rng: np.random.Generator) -> Choice:
    """How many objects appear after the first frame."""
    number = sum(frame > 0 for frame in moving.arrivals)
    lowest = int(rng.integers(max(0, number - 3), number + 1))
    others = [str(other) for other in range(lowest, lowest + 4) if other != number]
    text = "How many objects appear after the start of the video?"
    return shuffled(moving, text, str(number), others, rng)


def look(item: SceneObject) -> str:
    """What an object looks like."""
    return f"the {item.color} {item.shape}"


def clear_seconds(moving: MovingScene, fps: float) -> list[tuple[int, str]]:
    """Whole seconds at which the moving object is clearly in one quarter, each with the quarter.

    Models that merge two frames see the next one, too, so it is in the same quarter then. Empty if
    the object stays in one quarter.
    """
    quadrants = moving.quadrants()
    if len(set(quadrants) - {""}) < 2:
        return []
    seconds = []
    for second in range(int((len(quadrants) - 1) / fps) + 1):
        frame = round(second * fps)
        names = set(quadrants[frame : frame + 2])
        if len(names) == 1 and "" not in names:
            seconds.append((second, quadrants[frame]))
    return seconds


def shuffled(
    moving: MovingScene, text: str, answer: str, others: list[str], rng: np.random.Generator
) -> Choice:
    """A question with the answer and three others in random order."""
    options = [answer, *others[:3]]
    rng.shuffle(options)
    return Choice(moving, text, options, answer)
