"""The scenes: deterministic, split apart, and every question has exactly one answer."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from ivcp.core.errors import UserError
from ivcp.datasets.scenes import COLORS, SHAPES, SIDE, SIZES, SceneObject, make_scene
from ivcp.datasets.shapes import Shapes, draw_question

SCENES = [make_scene(0, "val", index) for index in range(300)]


def fits(item: SceneObject, text: str, everything: tuple[SceneObject, ...]) -> bool:
    """An independent reading of an expression."""
    words = text.split()
    for word in words:
        if word in COLORS and item.color != word:
            return False
        if word in SHAPES and item.shape != word:
            return False
        if word in SIZES and item.size != word:
            return False
    x, y = item.center
    same = [o.center for o in everything if o.shape == item.shape or "object" in words]
    extremes = {
        "leftmost": x == min(c[0] for c in same), "rightmost": x == max(c[0] for c in same),
        "topmost": y == min(c[1] for c in same), "bottommost": y == max(c[1] for c in same),
        "top": y < SIDE / 2, "bottom": y > SIDE / 2, "left": x < SIDE / 2, "right": x > SIDE / 2,
    }  # fmt: skip
    return all(extremes[word] for word in words if word in extremes)


def test_expressions_fit_one_object_only() -> None:
    kinds: Counter[str] = Counter()
    for index, scene in enumerate(SCENES):
        for draw in range(5):
            question = draw_question(scene, "grounding", np.random.default_rng((index, draw)))
            fitting = [o for o in scene.objects if fits(o, question.text, scene.objects)]
            assert [o.box for o in fitting] == [question.answer], question.text
            kinds[question.kind] += 1
    assert set(kinds) == {"attribute", "size", "position"}
    assert min(kinds.values()) > 150


def test_existence_is_answered_rightly_and_half_the_time_with_yes() -> None:
    answers: Counter[str] = Counter()
    for index, scene in enumerate(SCENES):
        question = draw_question(scene, "yes_no", np.random.default_rng(index))
        found = re.fullmatch(r"Is there an? (\w+) (\w+) in the image\?", question.text)
        assert found
        there = any((o.color, o.shape) == found.groups() for o in scene.objects)
        assert question.answer == ("Yes" if there else "No")
        answers[str(question.answer)] += 1
    assert 0.4 < answers["Yes"] / len(SCENES) < 0.6


def test_counts_are_right_and_letters_are_balanced() -> None:
    letters: Counter[str] = Counter()
    for index, scene in enumerate(SCENES):
        question = draw_question(scene, "multiple_choice", np.random.default_rng(index))
        found = re.fullmatch(r"How many (\w+)( objects)? are in the image\?", question.text)
        assert found
        words = {f"{shape}s": shape for shape in SHAPES} | {"crosses": "cross"}
        word = words.get(found.group(1), found.group(1))
        count = sum(word in (o.color, o.shape) for o in scene.objects)
        assert question.options["ABCD".index(str(question.answer))] == str(count)
        assert len(set(question.options)) == 4
        letters[str(question.answer)] += 1
    assert set(letters) == set("ABCD")
    assert min(letters.values()) > len(SCENES) / 8


def test_same_pixels_every_time_and_none_shared_between_splits() -> None:
    digests = {
        split: {
            hashlib.sha256(make_scene(0, split, index).render().tobytes()).hexdigest()
            for index in range(60)
        }
        for split in ("train", "val", "test")
    }
    assert all(len(found) == 60 for found in digests.values())
    assert not digests["train"] & digests["test"]
    assert not digests["train"] & digests["val"]
    assert not digests["val"] & digests["test"]
    first, second = (make_scene(0, "test", 3).render().tobytes() for _ in range(2))
    assert first == second


def test_boxes_are_tight_and_objects_do_not_touch() -> None:
    for scene in SCENES[:60]:
        pixels = np.asarray(scene.render()).astype(int)
        assert pixels.shape == (SIDE, SIDE, 3)
        for item in scene.objects:
            x1, y1, x2, y2 = item.box
            near = np.abs(pixels - np.array(COLORS[item.color])).max(-1) < 60
            inside = near[y1 : y2 + 1, x1 : x2 + 1]
            rows, columns = np.nonzero(inside.sum(1) > 1)[0], np.nonzero(inside.sum(0) > 1)[0]
            assert rows.min() <= 3
            assert rows.max() >= y2 - y1 - 3
            assert columns.min() <= 3
            assert columns.max() >= x2 - x1 - 3
        for number, first in enumerate(scene.objects):
            for second in scene.objects[number + 1 :]:
                apart_x = first.box[2] < second.box[0] or second.box[2] < first.box[0]
                apart_y = first.box[3] < second.box[1] or second.box[3] < first.box[1]
                assert apart_x or apart_y


def test_samples() -> None:
    data = Shapes(task="grounding", split="test", size=5)
    assert len(data) == 5
    assert len({data[index].id for index in range(5)}) == 5
    assert data[2] == Shapes(task="grounding", split="test", size=50)[2]
    with pytest.raises(IndexError, match="0 to 4"):
        data[5]
    with pytest.raises(UserError, match="split must be one of train, val, test; got 'dev'"):
        Shapes(task="grounding", split="dev")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="train, val, test"):
        make_scene(0, "dev", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"), [("size", "many"), ("size", 2.5), ("size", -1), ("seed", "x"), ("seed", -1)]
)
def test_numbers_that_cannot_be_used(field, value) -> None:
    with pytest.raises(
        UserError, match=rf"dataset\.{field} must be a whole number.*; got '?{value}"
    ):
        Shapes(**{"task": "grounding", field: value})
