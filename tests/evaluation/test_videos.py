"""Runs over datasets of videos: what cannot be read is counted, and overlays show frames."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from made_clips import write_clip, write_sound
from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.core.video import Video
from ivcp.evaluation.evaluate import evaluate
from ivcp.evaluation.job import check_videos
from ivcp.evaluation.served import ServedEvaluation
from ivcp.metrics.anls import Anls
from ivcp.models.internvl import InternVL
from ivcp.models.llava15 import Llava15
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.downsample import Downsample
from ivcp.pruners.none import NoPruning
from ivcp.results.prediction import Prediction, read_predictions


class Clips:
    """Questions about clips and an image."""

    task = "open_ended"
    has_videos: ClassVar[bool] = True

    def __init__(self, *videos: tuple[Video, ...]) -> None:
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Sample:
        images = () if self.videos[index] else (Image.new("RGB", (60, 40), "teal"),)
        return Sample(
            id=f"s{index}", task="open_ended", images=images, videos=self.videos[index],
            question="How many?", answer=("one",),
        )  # fmt: skip


@pytest.fixture
def videos(parts: dict[str, Any], model_folder: Path) -> dict[str, Any]:
    """The parts of a run that shows four frames of each clip."""
    family = Qwen25VL(path=str(model_folder), dtype="float32", frames=4, min_frame_tokens=4)
    return {**parts, "model": family, "metric": Anls()}


def results(parts: dict[str, Any]) -> tuple[dict[str, Any], list[Prediction]]:
    folder = Path(parts["folder"])
    lines = list(read_predictions(folder / "predictions.jsonl"))
    return json.loads((folder / "metrics.json").read_text()), [
        line for line in lines if isinstance(line, Prediction)
    ]


def test_clips_that_cannot_be_read_are_counted_and_the_run_goes_on(videos, tmp_path) -> None:
    clips = {
        "good": write_clip(tmp_path / "good.mp4"), "absent": tmp_path / "absent.mp4",
        "sound": write_sound(tmp_path / "sound.mp4"), "none": tmp_path / "none.mp4",
        "one": write_clip(tmp_path / "one.mp4", frames=1), "cut": tmp_path / "cut.mkv",
    }  # fmt: skip
    clips["none"].touch()
    whole = write_clip(tmp_path / "whole.mkv").read_bytes()
    clips["cut"].write_bytes(whole[: len(whole) // 2])
    unordered = Video(frames=(Image.new("RGB", (60, 40)),) * 2, times=(1.0, 0.0))
    samples = [(Video(path=path),) for path in clips.values()]
    dataset = Clips(*samples, (unordered,), (), (Video(path=clips["good"]),) * 2)
    evaluate(**{**videos, "dataset": dataset})
    metrics, lines = results(videos)
    assert (metrics["run"]["samples"], metrics["run"]["failed_samples"]) == (9, 5)
    failures = {line.index: line.failed or "" for line in lines}
    assert {index for index, failed in failures.items() if not failed} == {0, 4, 7, 8}
    for index, reason in {
        1: "No such file", 2: "no video stream", 3: "none.mp4 cannot be opened",
        5: "cut.mkv is cut off or damaged", 6: "ascending order",
    }.items():  # fmt: skip
        assert reason in failures[index]
    counts = [[len(image.grids) for image in line.images] for line in lines]
    assert counts == [[2], [], [], [], [1], [], [], [1], [2, 2]]
    for line in lines:
        if not line.failed:
            assert line.kept_tokens == sum(round(image.length / 2) for image in line.images)
    assert lines[0].image_size is None
    assert lines[7].image_size == (60, 40)


def test_an_overlay_is_a_strip_of_frames_with_their_times(videos, tmp_path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=60)
    calls: list[dict[str, Any]] = []

    def draw(image: Any, **arguments: Any) -> Image.Image:
        calls.append({"image": image, **arguments})
        return Image.new("RGB", (9, 9))

    family = Qwen25VL(path=videos["model"].path, dtype="float32", frames=24, min_frame_tokens=4)
    dataset = Clips((Video(path=path, start=1.0),), (Video(path=path),) * 2)
    videos["config"] = {**videos["config"], "pictures": 2}
    evaluate(**{**videos, "model": family, "draw": draw, "dataset": dataset})
    _, lines = results(videos)
    assert [len(call["image"]) for call in calls] == [8, 8, 8]  # of 12 moments
    strip = calls[0]
    chosen = [0, 2, 3, 5, 6, 8, 9, 11]  # evenly spaced
    layout = lines[0].images[0]
    assert strip["layout"].grids == tuple(layout.grids[moment] for moment in chosen)
    # 24 of 50 frames, both ends included: the first of moment 2 is frame 2 x 2 x 49 / 23
    seconds = [round(2 * moment * 49 / 23) / 10 for moment in chosen]
    assert strip["labels"] == [
        f"{moment + 1} at {second:.1f} s" for moment, second in zip(chosen, seconds, strict=True)
    ]
    shown = [10 + round(10 * second) for second in seconds]
    bars = [np.asarray(image)[image.height // 2, image.width // 20, 0] for image in strip["image"]]
    assert [bar > 128 for bar in bars] == [number % 2 == 1 for number in shown]  # the lowest bit
    tokens = set(strip["layout"].tokens.tolist())
    assert set(strip["kept"]) == set(lines[0].kept) & tokens
    assert f"8 of 12 moments; of all, {lines[0].kept_tokens} of" in strip["title"]
    names = sorted(path.name for path in Path(videos["folder"], "pictures").iterdir())
    assert names == ["000_s0.png", "001_s1_1.png", "001_s1_2.png"]


def test_a_clip_that_is_gone_costs_its_overlay_only(videos, tmp_path, caplog) -> None:
    path = write_clip(tmp_path / "a.mp4")

    def draw(image: Any, **arguments: Any) -> Image.Image:
        path.unlink(missing_ok=True)
        return Image.new("RGB", (9, 9))

    videos["config"] = {**videos["config"], "pictures": 2}
    evaluate(**{**videos, "draw": draw, "dataset": Clips(*[(Video(path=path),)] * 2)})
    assert results(videos)[0]["run"]["failed_samples"] == 0
    assert "No overlay of sample s1: " in caplog.text


def test_models_of_images_are_refused_before_weights_load(videos) -> None:
    with pytest.raises(
        UserError, match=r"^Llava15 takes images only, .* such as model=qwen25vl\.$"
    ):
        evaluate(**{**videos, "model": Llava15(path="absent"), "dataset": Clips(())})
    group = SimpleNamespace(tasks={"a": {"dataset": []}, "b": {"dataset": Clips(())}})
    served = {"model": Qwen25VL(), "backend": object()}
    for changes, message in (
        ({"model": Llava15()}, "Llava15 takes images only"),
        (served, "a server is handed images only: use backend=transformers"),
        ({"pruner": Downsample()}, "Downsample resizes images, but"),
    ):
        with pytest.raises(UserError, match=message):
            check_videos(made(dataset=group, **changes))
    for family in (InternVL(), Qwen25VL()):
        check_videos(made(dataset=group, model=family))
    images = SimpleNamespace(tasks={"a": {"dataset": []}})
    check_videos(made(dataset=images, model=Llava15(), backend=object()))


def made(**changes: Any) -> Any:
    """Parts of a run that nothing but `check_videos` reads."""
    usual = {"model": Qwen25VL(), "pruner": NoPruning(), "backend": None}
    return SimpleNamespace(**{**usual, **changes})


def test_a_video_is_not_handed_to_a_server() -> None:
    evaluation: Any = SimpleNamespace(server=object())
    sample = Clips((Video(path=Path("a.mp4")),))[0]
    batch: Any = SimpleNamespace(samples=(sample,))
    with pytest.raises(UserError, match=r"^A sample holds a video, and a server is handed images"):
        ServedEvaluation._answer(evaluation, batch)
