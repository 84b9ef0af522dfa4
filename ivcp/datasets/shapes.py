"""Questions about rendered scenes: referring expressions, yes/no existence, counting."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.types import Box, Sample, Task
from ivcp.datasets.scenes import COLORS, SHAPES, SIDE, SPLITS, Scene, SceneObject, Split, make_scene

TASKS: tuple[Task, ...] = ("grounding", "yes_no", "multiple_choice")
MARGIN = 12  # pixels by which "the leftmost" leads, and a quadrant's border is avoided


@dataclass(frozen=True)
class Question:
    """One question about a scene.

    Attributes:
        task: What kind of answer it wants.
        text: Referring expression or question.
        answer: Box in pixels, "Yes" / "No", or the letter of the right option.
        options: Texts of the options of a multiple-choice question.
        targets: Indices of the objects that the question is about.
        kind: Which template it comes from ("attribute", "size", "position", ...).
    """

    task: Task
    text: str
    answer: str | Box
    options: tuple[str, ...]
    targets: tuple[int, ...]
    kind: str


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Rendered scenes with one question each; nothing is stored, everything follows the seed.

    Attributes:
        task: "grounding", "yes_no" or "multiple_choice".
        split: "train", "val" or "test"; no scene is in two of them.
        size: Number of samples, at least 1.
        seed: Chooses another family of scenes.
    """

    task: Task
    split: Split = "test"
    size: int = 200
    seed: int = 0

    answer_kinds: ClassVar[tuple[Task, ...]] = TASKS

    def __post_init__(self) -> None:
        """Check choices and types.

        Raises:
            UserError: A field has another type, or none of its values.
        """
        for name, choices in (("task", self.answer_kinds), ("split", SPLITS)):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}."
                )
        check_fields(self, "dataset.")
        for name in ("size", "seed"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"dataset.{name} must be a whole number of at least 0; got "
                    f"{getattr(self, name)}."
                )

    def sample_id(self, index: int) -> str:
        """The id of a scene, without rendering it."""
        return f"{self.split}-{self.seed}-{index}"

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(f"Expected an index from 0 to {self.size - 1}; got {index}.")
        return self.made(index)

    def made(self, index: int) -> Sample:
        """The sample of a valid index."""
        scene, image = drawn_scene(self.seed, self.split, index)
        rng = np.random.default_rng((*scene.pixel_seed, 2))
        question = draw_question(scene, self.task, rng)
        return Sample(
            id=self.sample_id(index),
            task=self.task,
            images=(image.copy(),),
            question=question.text,
            answer=question.answer,
            options=question.options,
        )


@functools.lru_cache(maxsize=256)  # 115 MB; the runs of a sweep ask for the same scenes
def drawn_scene(seed: int, split: Split, index: int) -> tuple[Scene, Image.Image]:
    """A scene and its picture."""
    scene = make_scene(seed, split, index)
    return scene, scene.render()


def draw_question(scene: Scene, task: Task, rng: np.random.Generator) -> Question:
    """Draw one question of a kind; its answer is unique by construction."""
    if task == "grounding":
        return _refer(scene, rng)
    if task == "yes_no":
        return _exists(scene, rng)
    return _count(scene, rng)


def _refer(scene: Scene, rng: np.random.Generator) -> Question:
    """A referring expression that fits exactly one object.

    First the kind of expression is drawn, then the object, so that rare kinds are not drowned by
    plain attributes.
    """
    kinds: dict[str, list[tuple[str, int]]] = {"attribute": [], "size": [], "position": []}
    for index, item in enumerate(scene.objects):
        for kind, text in _descriptions(scene.objects, item):
            kinds[kind].append((text, index))
    open_kinds = [kind for kind, expressions in kinds.items() if expressions]
    if not open_kinds:  # all look alike: name the outermost one, which always exists
        order = min(range(len(scene.objects)), key=lambda i: scene.objects[i].center)
        choice, kind = ("the leftmost object", order), "position"
    else:
        kind = str(rng.choice(open_kinds))
        choice = kinds[kind][int(rng.integers(len(kinds[kind])))]
    text, target = choice
    x1, y1, x2, y2 = scene.objects[target].box
    return Question("grounding", text, (x1, y1, x2, y2), (), (target,), kind)


def _descriptions(objects: tuple[SceneObject, ...], item: SceneObject) -> list[tuple[str, str]]:
    """All (kind, expression) pairs that fit `item` and no other object."""
    pairs: list[tuple[str, str]] = []
    peers = [other for other in objects if other is not item and other.shape == item.shape]
    if not any(other.color == item.color for other in peers):
        pairs.append(("attribute", f"the {item.color} {item.shape}"))
    if peers and not any(other.size == item.size for other in peers):
        pairs.append(("size", f"the {item.size} {item.shape}"))
    if peers:
        x, y = item.center
        centers = [other.center for other in peers]
        if all(x < cx - MARGIN for cx, _ in centers):
            pairs.append(("position", f"the leftmost {item.shape}"))
        if all(x > cx + MARGIN for cx, _ in centers):
            pairs.append(("position", f"the rightmost {item.shape}"))
        if all(y < cy - MARGIN for _, cy in centers):
            pairs.append(("position", f"the topmost {item.shape}"))
        if all(y > cy + MARGIN for _, cy in centers):
            pairs.append(("position", f"the bottommost {item.shape}"))
        corner = quadrant(item.center)
        if corner and not any(quadrant(c, margin=-MARGIN, only=corner) for c in centers):
            pairs.append(("position", f"the {item.shape} in the {corner}"))
    return pairs


def quadrant(center: tuple[float, float], margin: int = MARGIN, only: str = "") -> str:
    """The quadrant ("top left", ...) that holds `center` by at least `margin` pixels, or ""."""
    x, y = center[0] - SIDE / 2, center[1] - SIDE / 2
    for vertical, dy in (("top", -1), ("bottom", 1)):
        for horizontal, dx in (("left", -1), ("right", 1)):
            name = f"{vertical} {horizontal}"
            if x * dx >= margin and y * dy >= margin and only in ("", name):
                return name
    return ""


def _exists(scene: Scene, rng: np.random.Generator) -> Question:
    """An existence question in POPE's manner; half the answers are yes.

    The absent object is drawn as POPE draws it: at random, or adversarially (its colour and its
    shape are both in the scene, only not on one object).
    """
    present = {(item.color, item.shape) for item in scene.objects}
    absent = [(c, s) for c in COLORS for s in SHAPES if (c, s) not in present]
    colors, shapes = {c for c, _ in present}, {s for _, s in present}
    adversarial = [(c, s) for c, s in absent if c in colors and s in shapes]
    positive = rng.random() < 0.5
    if positive:
        pool, kind = sorted(present), "present"
    elif adversarial and rng.random() < 0.5:
        pool, kind = adversarial, "adversarial"
    else:
        pool, kind = absent, "random"
    color, shape = pool[int(rng.integers(len(pool)))]
    article = "an" if color[0] in "aeiou" else "a"
    targets = tuple(
        i for i, item in enumerate(scene.objects) if (item.color, item.shape) == (color, shape)
    )
    text = f"Is there {article} {color} {shape} in the image?"
    return Question("yes_no", text, "Yes" if positive else "No", (), targets, kind)


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    """How many objects have a shape or a colour; four options in random order."""
    field: Literal["shape", "color"] = "shape" if rng.random() < 0.5 else "color"
    values = sorted({getattr(item, field) for item in scene.objects})
    value = values[int(rng.integers(len(values)))]
    targets = tuple(i for i, item in enumerate(scene.objects) if getattr(item, field) == value)
    count = len(targets)
    lowest = int(rng.integers(max(1, count - 3), count + 1))
    options = [str(number) for number in range(lowest, lowest + 4)]
    rng.shuffle(options)
    what = f"{value}s" if field == "shape" else f"{value} objects"
    if value == "cross" and field == "shape":
        what = "crosses"
    return Question(
        "multiple_choice",
        f"How many {what} are in the image?",
        "ABCD"[options.index(str(count))],
        tuple(options),
        targets,
        f"count_{field}",
    )
