"""Pictures of records: which tokens and boxes each image gets."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.types import Sample
from ivcp.evaluation.overlays import overlays
from ivcp.results.prediction import Prediction

PHOTO = Image.new("RGB", (8, 6))
TILED = ImageLayout((Grid(3, 2, 2, "tile", 3), Grid(9, 1, 2, "thumbnail")))  # newlines at 5 and 8
PLAIN = ImageLayout((Grid(14, 2, 2),))


def no_clip(video: Any) -> Any:
    raise AssertionError("there is no video")


def test_each_image_gets_its_own_tokens_and_the_last_one_the_boxes() -> None:
    calls: list[dict[str, Any]] = []

    def draw(image: Image.Image, **told: Any) -> Image.Image:
        calls.append(told)
        return image

    sample = Sample(
        id="a", task="grounding", images=(PHOTO,) * 2, question="q", answer=(1, 1, 2, 2)
    )
    prediction = Prediction(
        index=0, id="a", task="grounding", score=0, visual_tokens=10,
        prediction="some\n text", parsed=(0.0, 0.0, 3.0, 3.0),
        images=(TILED, PLAIN), kept=(4, 7, 10, 14, 17),
        reasons={"ivc": (4, 14), "seed": (7, 17), "foreground": (10,)},
    )  # fmt: skip
    assert list(overlays(draw, sample, prediction, no_clip)) == [PHOTO, PHOTO]
    assert [call["layout"] for call in calls] == [TILED, PLAIN]
    assert [call["kept"] for call in calls] == [[4, 7, 10], [14, 17]]
    assert [call["reasons"] for call in calls] == [["ivc", "seed", "foreground"], ["ivc", "seed"]]
    assert [call["truth"] for call in calls] == [None, (1, 1, 2, 2)]
    assert [call["predicted"] for call in calls] == [None, (0.0, 0.0, 3.0, 3.0)]
    assert {call["title"] for call in calls} == {"q: some text"}
