"""Rendered scenes with time: one object moves in a straight line, or objects appear one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ivcp.datasets.scenes import SIDE, Scene, SceneObject, is_free
from ivcp.datasets.shapes import quadrant

DISTANCE = 48  # pixels that an object moves at least
TRIES = 40


@dataclass(frozen=True)
class MovingScene:
    """What happens in a scene.

    Attributes:
        scene: The objects as they are at the beginning, or once they have appeared.
        frames: Number of frames.
        mover: Index of the object that moves; None if none does.
        shift: How far it has moved in the last frame, `(x, y)` in pixels.
        arrivals: For each object, the frame in which it appears; 0 if it is there from the start.
    """

    scene: Scene
    frames: int
    mover: int | None = None
    shift: tuple[int, int] = (0, 0)
    arrivals: tuple[int, ...] = ()

    @property
    def moved_object(self) -> SceneObject:
        """The object that moves, as it is in the first frame."""
        if self.mover is None:
            raise ValueError("Expected a scene in which an object moves; none does.")
        return self.scene.objects[self.mover]

    def at(self, frame: int) -> list[SceneObject | None]:
        """The objects in a frame; None for one that has not appeared yet."""
        moment: list[SceneObject | None] = list(self.scene.objects)
        if self.mover is not None:
            moment[self.mover] = self._moved(frame)
        for index, arrival in enumerate(self.arrivals):
            if frame < arrival:
                moment[index] = None
        return moment

    def render(self) -> tuple[Image.Image, ...]:
        """All frames, `SIDE` x `SIDE` pixels each."""
        return tuple(self.scene.render(self.at(frame)) for frame in range(self.frames))

    def quadrants(self) -> list[str]:
        """The quadrant of the moving object in each frame; "" where it is near a border."""
        return [quadrant(self._moved(frame).center) for frame in range(self.frames)]

    def is_clear(self) -> bool:
        """Whether the moving object stays in the scene and touches no other."""
        others = [item for index, item in enumerate(self.scene.objects) if index != self.mover]
        boxes = [self._moved(frame).box for frame in range(self.frames)]
        return all(min(box) > 0 and max(box) < SIDE - 1 and is_free(box, others) for box in boxes)

    def _moved(self, frame: int) -> SceneObject:
        x, y = (round(frame / (self.frames - 1) * pixels) for pixels in self.shift)
        x1, y1, x2, y2 = self.moved_object.box
        return replace(self.moved_object, box=(x1 + x, y1 + y, x2 + x, y2 + y))


def moves(scene: Scene, frames: int, rng: np.random.Generator) -> Iterator[MovingScene]:
    """Ways in which one object can move without touching others; perhaps none in a full scene.

    The object is the only one of its colour and shape.

    Args:
        scene: The objects.
        frames: Number of frames, at least 2.
        rng: Draws objects and targets.
    """
    looks = [(item.color, item.shape) for item in scene.objects]
    for mover in rng.permutation(len(looks)).tolist():
        if looks.count(looks[mover]) > 1:
            continue
        x, y = scene.objects[mover].center
        for to_x, to_y in rng.integers(0, SIDE, size=(TRIES, 2)).tolist():
            moving = MovingScene(scene, frames, mover, (round(to_x - x), round(to_y - y)))
            if np.hypot(*moving.shift) >= DISTANCE and moving.is_clear():
                yield moving


def arrivals(scene: Scene, frames: int, rng: np.random.Generator) -> MovingScene:
    """A scene in which some objects appear, but not all; perhaps none."""
    count = int(rng.integers(0, len(scene.objects)))
    late = set(rng.permutation(len(scene.objects))[:count].tolist())
    drawn = rng.integers(1, frames, size=len(scene.objects)).tolist()
    times = tuple(frame if index in late else 0 for index, frame in enumerate(drawn))
    return MovingScene(scene, frames, arrivals=times)
