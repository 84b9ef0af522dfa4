"""What a notebook calls: load, ask, draw, evaluate."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from made_clips import write_clip
from PIL import Image
from untrained import save_untrained

import ivcp
from ivcp import FastV, IVCPrune
from ivcp.core.budgeted import Budgeted
from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.core.video import Video
from ivcp.datasets.shapes import Shapes
from ivcp.metrics.grounding import GroundingMetrics
from ivcp.models.llava15 import Llava15
from ivcp.models.qwen25vl import PACKAGED

QUIET = {"workers": 0, "pictures": 0, "limit": 2, "generation": {"max_new_tokens": 4}}


@pytest.fixture(scope="module")
def loaded():
    return ivcp.load()


@pytest.fixture(scope="module")
def sample():
    return ivcp.load_dataset("shapes", size=3)[0]


def test_a_question_about_an_image(loaded, sample, tmp_path) -> None:
    file = tmp_path / "scene.png"
    sample.images[0].save(file)
    method = IVCPrune(keep_ratio=0.5)
    reply = ivcp.ask(*loaded, file, sample.question, pruner=method, task="grounding")
    assert reply.box is not None
    assert str([round(edge) for edge in reply.box]) in reply.text
    assert reply.draw().width >= 480
    assert repr(reply).endswith(f"box={reply.box}, 72 of 144 visual tokens kept)")
    assert Image.open(BytesIO(reply._repr_png_())).tobytes() == reply.draw().tobytes()
    (summary,) = reply.session.summary()
    assert (summary["visual_tokens"], summary["kept_tokens"]) == (144, 72)
    assert sum(summary["reasons"].values()) == 72
    assert summary["kv_cache_bytes"] > 0
    assert not loaded[0]._forward_hooks  # nothing is left on the model


def test_without_a_method_all_tokens_stay(loaded, sample) -> None:
    reply = ivcp.ask(*loaded, sample.images, "What is this?", max_new_tokens=2)
    assert reply.session.summary()[0]["keep_ratio"] == 1
    assert reply.box is None


def test_a_question_about_a_video(loaded, sample, tmp_path) -> None:
    file = write_clip(tmp_path / "a.mp4", frames=40)
    method = IVCPrune(keep_ratio=0.5)
    reply = ivcp.ask(*loaded, [], "What moves?", video=file, pruner=method, max_new_tokens=2)
    (video,) = reply.session.layouts[0].images
    assert len(video.grids) == 4  # 4 seconds, 2 frames each, in pairs
    strip = reply.draw()
    assert strip.width > 3 * 240
    assert reply._repr_png_() is not None
    both = ivcp.ask(*loaded, sample.images[0], "What?", video=Video(path=file), max_new_tokens=2)
    assert len(both.session.layouts[0].images) == 2
    assert both.draw().tobytes() != strip.tobytes()
    with pytest.raises(UserError, match=r"^The video cannot be read: .*absent\.mp4"):
        ivcp.ask(*loaded, [], "What?", video=tmp_path / "absent.mp4")
    with pytest.raises(UserError, match="takes images only"):
        ivcp.ask(loaded[0], replace(loaded[1], family=Llava15()), [], "What?", video=file)


def test_an_evaluation_takes_objects_and_is_typed(loaded, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, _ = loaded
    run = ivcp.evaluate(model, FastV(keep_ratio=0.5), dataset="shapes", **QUIET)
    assert run.folder.parts[0] == "outputs"
    assert run.value == run.results.run.primary_metric.value
    assert run.info.layers == (2,)
    score = f"acc@0.5 {100 * run.value:.1f} %, 2 samples"
    assert repr(run) == f"FinishedRun(tiny · shapes · fastv at 0.5: {score}, {run.folder})"
    assert [answer.kept_tokens for answer in run.predictions()] == [72, 72]
    assert next(model.parameters()).device.type == "cpu"  # the weights are still there


def test_it_is_comparable_with_the_same_run_from_the_command_line(loaded, tmp_path) -> None:
    from ivcp.results.comparability import differences

    ours = ivcp.evaluate(*loaded[:1], folder=tmp_path / "objects", processor=loaded[1], **QUIET)
    named = ivcp.evaluate("tiny", folder=tmp_path / "named", trainer="cpu", **QUIET)
    assert differences(ours.info, named.info) == []
    answers = [json.loads(answer.line())["prediction"] for answer in ours.predictions()]
    assert answers == [json.loads(answer.line())["prediction"] for answer in named.predictions()]


def test_a_method_of_a_cell_has_its_own_name(loaded, tmp_path, capsys) -> None:
    class Mine(FastV):
        __module__ = "__main__"

    for name, method in {"mine": Mine(keep_ratio=0.5), "none": None}.items():
        run = ivcp.evaluate(loaded[0], method, folder=tmp_path / name, quiet=True, **QUIET)
        assert run.info.pruner == {"mine": "Mine", "none": "none"}[name]
    assert capsys.readouterr().out == ""
    table = ivcp.compare_runs(tmp_path)
    assert list(table["pruner"]) == ["Mine"]
    assert table["difference_low"].notna().all()


def test_a_dataset_and_a_checkpoint_of_ones_own(tmp_path) -> None:
    model, processor = ivcp.load(save_untrained(tmp_path / "model", layers=4), dtype="float32")
    data = Shapes(task="grounding", size=2)
    run = ivcp.evaluate(
        model, IVCPrune(keep_ratio=0.3), dataset=data, metric=GroundingMetrics(),
        processor=processor, folder=tmp_path / "run", **QUIET,
    )  # fmt: skip
    assert run.info.layers == (2,)
    assert run.info.config["dataset"]["size"] == 2
    assert run.info.dataset == "Shapes"


class Sized:
    """Scenes in two sizes, of 144 and 36 tokens."""

    task = "grounding"

    def __init__(self, sides: list[int]) -> None:
        self.scenes, self.sides = Shapes(task="grounding", size=len(sides)), sides

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> Sample:
        scene, side = self.scenes[index], self.sides[index]
        return replace(scene, images=(scene.images[0].resize((side, side)),))


def test_an_image_with_too_few_tokens_fails_alone(loaded, tmp_path) -> None:
    whole, small = 192, 96
    run = ivcp.evaluate(
        loaded[0], FastV(), dataset=Sized([whole, whole, small, whole]), metric=GroundingMetrics(),
        processor=loaded[1], folder=tmp_path / "run", tokens=60, batch_size=4,
        **QUIET | {"limit": None},
    )  # fmt: skip
    failed = [answer.failed for answer in run.predictions()]
    assert [reason is None for reason in failed] == [True, True, False, True]
    assert "tokens=60 were asked for, but an image has 36 visual tokens" in failed[2]
    assert [answer.kept_tokens for answer in run.predictions()] == [60, 60, 0, 60]
    assert run.info.budget.obtained == 60


def test_a_run_ends_behind_a_few_images_if_all_have_too_few_tokens(loaded, tmp_path) -> None:
    with pytest.raises(UserError, match="tokens=600 were asked for, but an image has 144"):
        ivcp.evaluate(
            loaded[0], FastV(), dataset=Sized([192] * 40), metric=GroundingMetrics(),
            processor=loaded[1], folder=tmp_path / "run", tokens=600, **QUIET | {"limit": None},
        )  # fmt: skip
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("settings", "asked", "obtained"),
    [
        ({"budget": "qwen25vl_33"}, "33.3 %, layer average", 0.333),
        ({"tokens": 60, "budget": "layer_average"}, "60 tokens, layer average", 60),
        ({"tokens": 60, "budget": {"count": "layer_average"}}, "60 tokens, layer average", 60),
    ],
)
def test_a_method_that_is_an_object_gets_a_budget(
    loaded, tmp_path, settings, asked: str, obtained: float
) -> None:
    run = ivcp.evaluate(loaded[0], FastV(), folder=tmp_path / "run", **settings, **QUIET)
    assert run.info.budget.asked == asked
    assert run.info.budget.obtained == pytest.approx(obtained, rel=0.01)


def test_a_method_with_a_budget_is_recorded_by_its_own_name(loaded, tmp_path) -> None:
    method = Budgeted(method=FastV(), tokens=60, count="layer_average")
    run = ivcp.evaluate(loaded[0], method, folder=tmp_path / "run", **QUIET)
    assert run.info.pruner == "fastv"
    assert run.info.budget.obtained == 60


def test_a_session_draws_what_it_kept(loaded, sample) -> None:
    model, processor = loaded
    inputs = processor.family.encode(processor, [sample]).inputs
    with ivcp.pruned(model, IVCPrune(keep_ratio=0.25)) as session:
        model.generate(**inputs, max_new_tokens=1)
    assert session.draw(sample.images[0]).width >= 480
    with pytest.raises(UserError, match="no image 1 of sample 0"):
        session.draw(sample.images[0], number=1)


def test_padding_that_a_session_cannot_know_is_refused() -> None:
    from ivcp.testing import SMALL, prompts, random_model

    small = SMALL["llava15"]
    model, prompt = random_model(small.config()), prompts([2, small.images[0], 3], family="llava15")
    with ivcp.pruned(model, IVCPrune(keep_ratio=0.5, layer=1)) as session:
        model(**prompt.inputs)
    with pytest.raises(UserError, match="pads or crops images to a square"):
        session.draw(Image.new("RGB", (40, 30)))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda model, _: ivcp.evaluate(model, limt=3), "no setting 'limt'; did you mean limit"),
        (lambda *_: ivcp.evaluate(None), "model must be a Hugging Face model"),
        (lambda model, _: ivcp.evaluate(model, dataset="shaps"), "did you mean shapes"),
        (lambda model, _: ivcp.evaluate(model, trainer="ddp"), "is evaluated where it is"),
        (lambda model, _: ivcp.evaluate(model, dataset=[]), "pass metric="),
        (lambda model, _: ivcp.evaluate(model, processor="x"), "processor must be what ivcp.load"),
        (
            lambda model, _: ivcp.evaluate(model, FastV(), ratio=0.1),
            "The pruner has its keep_ratio",
        ),
        (
            lambda model, _: ivcp.evaluate(model, Budgeted(method=FastV(), tokens=60), tokens=30),
            "The pruner has a budget already",
        ),
        (lambda model, _: ivcp.load_dataset("shapes", sze=3), "did you mean size"),
        (lambda model, _: ivcp.ask(model, None, [], "?"), "processor must be what ivcp.load gave"),
        (lambda *pair: ivcp.ask(*pair, "no.png", "?"), "no.png cannot be read as an image"),
        (lambda *pair: ivcp.ask(*pair, [], "?", foo=1), "generate takes no argument 'foo'"),
        (lambda *pair: ivcp.ask(*pair, None, "?"), "image must be an image of PIL, .* a NoneType"),
        (lambda *pair: ivcp.ask(*pair, np.zeros((8, 8, 3)), "?"), "got a ndarray"),
        (lambda *pair: ivcp.ask(*pair, [], None), "question must be a text; got None"),
        (lambda *pair: ivcp.ask(*pair, [], " "), "question must be a text; got ' '"),
        (
            lambda *pair: ivcp.ask(*pair, [], "a \ud83d"),
            "Expected whole characters in the question",
        ),
        (lambda *pair: ivcp.ask(*pair, [], "?", task="box"), "task must be one of .*; got 'box'"),
        (lambda *_: ivcp.load("/no/folder"), "must be an existing folder"),
        (lambda *_: ivcp.load(max_pixel=3), "no setting 'max_pixel'; did you mean max_pixels"),
        (lambda *_: ivcp.load(PACKAGED, sixe=3), "no setting 'sixe'; it has path, dtype, "),
        (lambda *_: ivcp.load(dtype="fp16"), "dtype must be .*; got 'fp16'"),
    ],
)
def test_a_mistake_is_one_sentence(call, sentence, loaded) -> None:
    with pytest.raises(UserError, match=sentence):
        call(*loaded)


def test_a_dtype_as_torch_has_it() -> None:
    assert ivcp.load(dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("number", [1, -2])
def test_an_image_that_was_not_in_the_prompt(loaded, sample, number) -> None:
    reply = ivcp.ask(*loaded, sample.images, "?", max_new_tokens=1)
    assert reply.draw(0).size == reply.draw(-1).size
    with pytest.raises(UserError, match=f"There is no image {number}; the prompt had 1"):
        reply.draw(number)
    with pytest.raises(UserError, match=r"must be an image of PIL; got the path 'a\.png'"):
        reply.session.draw("a.png")


def test_one_of_several_processes_is_refused(loaded, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="under torchrun or srun, use ivcp run"):
        ivcp.evaluate(loaded[0])


def test_a_model_in_training_mode_is_refused(loaded) -> None:
    model, _ = loaded
    model.train()
    try:
        with pytest.raises(UserError, match="training mode"):
            ivcp.evaluate(model)
    finally:
        model.eval()
