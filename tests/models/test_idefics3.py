"""Idefics3 and SmolVLM: prompts and pixels as the library's, views that are black, wording."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import run_py
from expected.idefics3 import FAKE, library_text
from PIL import Image
from processing import setup
from test_geometry import for_the_model, laid_out, noise
from test_loading import weights
from torch import Tensor
from transformers.models.smolvlm import processing_smolvlm as library

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.core.video import Video
from ivcp.datasets.shapes import Shapes
from ivcp.datasets.task_group import TaskGroup
from ivcp.evaluation.job import Parts
from ivcp.models.idefics3 import FAINT, Idefics3
from ivcp.models.smolvlm import SmolVLM, in_words
from ivcp.pruners.uniform import UniformGrid
from ivcp.testing import model_of

both = pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
SHORT = "Answer the question using a single word or phrase."
CHOICE = "Question: Which?\nOptions:\nA. cat\nB. a dog\n"


def sample(*images: Image.Image, **fields: Any) -> Sample:
    known: dict[str, Any] = {
        "id": "s", "task": "open_ended", "question": "What?", "answer": "", "images": images,
    }  # fmt: skip
    return Sample(**known | fields)


def clip(frames: int, fps: float = 2.0, size: tuple[int, int] = (40, 30)) -> Video:
    images = tuple(noise(size, seed) for seed in range(frames))
    return Video(frames=images, times=tuple(frame / fps for frame in range(frames)))


def spelled(processor: Any, row: Tensor) -> str:
    """The text of a row, padding and the token that begins it left out."""
    ids = [token for token in row.tolist() if token != processor.tokenizer.pad_token_id]
    text: str = processor.tokenizer.decode(ids)
    return text.removeprefix(processor.tokenizer.bos_token)


# --- against the library


@both
@pytest.mark.parametrize("split", [True, False])
def test_prompts_and_pixels_are_the_library_s(name, split, tmp_path) -> None:
    family, processor = setup(name, tmp_path, split=split)
    images = [noise((90, 50), 1), noise((20, 70), 2), noise((33, 33), 3)]
    encoded = family.encode(processor, [sample(*images[:2]), sample(), sample(images[2])])
    texts = [library_text(processor, image.size, 9) for image in images]
    expected = [f"{texts[0]}{texts[1]}", " ", texts[2]]
    for row, shown in zip(encoded.inputs["input_ids"], expected, strict=True):
        assert spelled(processor, row) == (
            f"User:{shown}What?\n{SHORT}<end_of_utterance>\nAssistant:"
        )
    nested = processor.images([images[:2], images[2:]], return_tensors="pt")
    real = nested["pixel_attention_mask"].flatten(0, 1).any(-1).any(-1)
    own = encoded.inputs["pixel_values"]
    assert own.shape[1] == 1
    assert torch.equal(own[:, 0], nested["pixel_values"].flatten(0, 1)[real])


@both
def test_inputs_as_the_library_pads_them(name, tmp_path) -> None:
    """A row for each sample, filled up with views of zeros: the same layouts and answers."""
    family, processor = setup(name, tmp_path)
    images = [noise((90, 50), 1), noise((20, 70), 2), noise((70, 70), 3)]
    samples = [sample(*images[:2]), sample(images[2])]
    inputs = for_the_model(name, processor, family.encode(processor, samples).inputs)
    nested = dict(processor.images([images[:2], images[2:]], return_tensors="pt"))
    assert not nested["pixel_attention_mask"].flatten(2).any(2).all(), "nothing is filled up"
    padded = {**inputs, **nested}
    for one, other in zip(
        *(laid_out(name, family, each) for each in (inputs, padded)), strict=True
    ):
        assert one.images == other.images
        assert torch.equal(one.markers, other.markers)
        assert [i.number for i in one.images] == [i.number for i in other.images]
    model, answers = model_of(name), []
    for each in (inputs, padded):
        with torch.no_grad(), pruned(model, UniformGrid(keep_ratio=0.4, layer=2)) as session:
            answers.append((model(**each).logits[:, -1], session.kept))
    torch.testing.assert_close(answers[0][0], answers[1][0], atol=1e-5, rtol=1e-5)
    for one, other in zip(answers[0][1], answers[1][1], strict=True):
        assert torch.equal(one, other)


@both
def test_a_black_view_does_not_vanish(name, tmp_path) -> None:
    """The library takes views of zeros for padding; with these settings a black one is zeros."""
    plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    family, processor = setup(name, tmp_path, published=plain)
    image = Image.fromarray(np.zeros((30, 60, 3), np.uint8))
    image.paste((200, 10, 90), (0, 0, 10, 10))  # other views stay black
    inputs = for_the_model(name, processor, family.encode(processor, [sample(image)]).inputs)
    pixels = inputs["pixel_values"].flatten(1)
    black = pixels.abs().amax(1) <= FAINT
    assert 0 < black.sum() < len(black)
    assert pixels.any(1).all()
    with torch.no_grad():
        assert model_of(name)(**inputs).logits.isfinite().all()
    with torch.no_grad(), pytest.raises(ValueError, match="do not match"):
        pixels[black] = 0
        model_of(name)(**inputs)


@both
def test_a_prompt_without_markers_is_refused(name, tmp_path) -> None:
    family, processor = setup(name, tmp_path)
    encoded = family.encode(processor, [sample(noise((8, 8)))]).inputs
    ids = encoded["input_ids"]
    ids[ids == processor.tokenizer.convert_tokens_to_ids(FAKE)] = 7
    last = (ids[0] == processor.tokenizer.convert_tokens_to_ids("<image>")).nonzero().max()
    ids[0, last + 1] = 8
    with pytest.raises(UserError, match="markers around them"):
        laid_out(name, family, for_the_model(name, processor, encoded))


def test_images_of_other_sizes_before_tiles(tmp_path) -> None:
    family, processor = setup("idefics3", tmp_path, longest_edge=48)
    encoded = family.encode(processor, [sample(noise((200, 90)))])
    assert encoded.inputs["pixel_values"].shape == (2 * 1 + 1, 1, 3, 24, 24)
    with pytest.raises(UserError, match=r"model\.longest_edge must be at least 1"):
        Idefics3(longest_edge=0)


# --- videos


def test_frames_are_global_views_behind_their_times(tmp_path) -> None:
    family, processor = setup("smolvlm", tmp_path)
    asked = [
        sample(noise((8, 8)), videos=(clip(4, fps=0.02), clip(3, fps=1.0)), question="What?"),
        sample(noise((90, 50))),
        sample(videos=(clip(2, fps=1.0),)),
    ]
    encoded = family.encode(processor, asked)
    view = library._prompt_single_image(9, FAKE, "<image>", "<global-img>")

    def text(intro: str, *times: str) -> str:
        shown = "".join(library.FRAME_TIMESTAMP_MESSAGE.format(timestamp=t) + view for t in times)
        return intro + shown + library.DEFAULT_MEDIA_OUTTRO

    def intro(count: str, duration: str) -> str:
        return library.DEFAULT_VIDEO_INTRO.format(frame_count=count, video_duration=duration)

    long = text(intro("four", "0:03:20"), "00:00", "00:50", "01:40", "02:30")
    short = text(intro("three", "0:00:03"), "00:00", "00:01", "00:02")
    third = text(intro("two", "0:00:02"), "00:00", "00:01")
    end = f"What?\n{SHORT}<end_of_utterance>\nAssistant:"
    small = library_text(processor, (8, 8), 9)
    expected = [
        f"User: {long}{short}{small}{end}",
        f"User:{library_text(processor, (90, 50), 9)}{end}",
        f"User: {third}{end}",
    ]
    assert [spelled(processor, row) for row in encoded.inputs["input_ids"]] == expected
    inputs = for_the_model("smolvlm", processor, encoded.inputs)
    layouts = laid_out("smolvlm", family, inputs)
    kinds = [[{grid.kind for grid in image.grids} for image in row.images] for row in layouts]
    assert [[len(image.grids) for image in row.images] for row in layouts] == [
        [4, 3, 17], [13], [2],
    ]  # fmt: skip
    assert kinds[0] == [{"frame"}, {"frame"}, {"tile", "thumbnail"}]
    assert kinds[2] == [{"frame"}]
    counted = [image.number for row in layouts for image in row.images]
    assert counted == [0, 4, 7, 24, 37]
    pixels = inputs["pixel_values"]
    frames = [asked[0].videos[0].frames, asked[0].videos[1].frames, asked[2].videos[0].frames]
    for start, shown in zip((0, 4, 37), frames, strict=True):
        alone = processor.images(
            [list(shown)], do_image_splitting=False, size={"longest_edge": 36}, return_tensors="pt"
        )["pixel_values"][0]
        assert torch.equal(pixels[start : start + len(alone), 0], alone)
    with torch.no_grad():
        assert model_of("smolvlm")(**inputs).logits.isfinite().all()


@pytest.mark.parametrize(
    ("fields", "video", "expected"),
    [
        ({}, (20, 2.0), [0, 2, 4, 6, 8, 10, 12, 14, 16, 19]),  # 10 s, both ends
        ({"fps": 0.2}, (20, 2.0), [0, 19]),
        ({"frames": 3}, (20, 2.0), [0, 9, 19]),
        ({"frames": 30}, (4, 2.0), [0, 1, 2, 3]),
        ({"max_frames": 4}, (20, 2.0), [2, 7, 12, 18]),  # 10 s at 4 frames: a second is cut off
        ({}, (1, 2.0), [0]),
    ],
)
def test_frames_are_chosen_as_the_library_chooses_them(fields, video, expected, tmp_path) -> None:
    family, processor = setup("smolvlm", tmp_path, **fields)
    read = family.read_clip(processor, clip(*video))
    assert [round(time * video[1]) for time in read.times] == expected


def test_large_frames_are_shrunk_when_they_are_read(tmp_path) -> None:
    family, processor = setup("smolvlm", tmp_path)
    shapes = {(300, 100): (72, 24), (50, 400): (9, 72), (72, 20): (72, 20), (1000, 1): (72, 1)}
    for before, after in shapes.items():
        read = family.read_clip(processor, clip(2, size=before))
        assert tuple(read.frames.shape[2:]) == after[::-1]


def test_numbers_in_words() -> None:
    words = {
        0: "zero", 1: "one", 13: "thirteen", 20: "twenty", 42: "forty-two", 64: "sixty-four",
        100: "one hundred", 101: "one hundred and one", 256: "two hundred and fifty-six",
        999: "nine hundred and ninety-nine", 1000: "1000",
    }  # fmt: skip
    assert {number: in_words(number) for number in words} == words


def test_a_video_that_has_not_begun_is_refused(tmp_path) -> None:
    family, processor = setup("smolvlm", tmp_path)
    encoded = family.encode(processor, [sample(videos=(clip(2, fps=1.0),))])
    inputs = for_the_model("smolvlm", processor, encoded.inputs)
    inputs["pixel_attention_mask"][0] = 3
    with pytest.raises(UserError, match="first frames of videos"):
        laid_out("smolvlm", family, inputs)


def test_videos_are_evaluated(tmp_path, monkeypatch, capsys) -> None:
    folder = weights("smolvlm", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    words = [
        "model=smolvlm2_256m", f"model.path={folder}", "model.dtype=float32", "pruner=ivcp",
        "ratio=0.4", "pruner.layer=2", "dataset=shapes_video", "trainer=cpu", "logger=none",
        "workers=0", "limit=3", "batch_size=2", "pictures=0", "generation.max_new_tokens=3",
    ]  # fmt: skip
    assert run_py(*words) == 0, capsys.readouterr()
    (path,) = tmp_path.glob("outputs/*/*/predictions.jsonl")
    for line in map(json.loads, path.open()):
        assert line["failed"] is None
        (video,) = line["images"]
        assert [grid["kind"] for grid in video["grids"]] == ["frame"] * 4  # one a second
        assert line["visual_tokens"] == 4 * 9
        assert line["kept_tokens"] == round(0.4 * 36)


def test_idefics3_takes_images_only(tmp_path) -> None:
    family, processor = setup("idefics3", tmp_path)
    with pytest.raises(UserError, match="Idefics3 takes images only"):
        family.encode(processor, [sample(videos=(clip(2),))])


# --- words, as VLMEvalKit's sources state them


@pytest.mark.parametrize(
    ("task", "benchmark", "fields", "text"),
    [
        ("open_ended", "OCRBench", {}, "What?\nGive a very brief answer."),
        ("open_ended", "InfoVQA_VAL", {}, f"What?\n{SHORT}\nGive a very brief answer."),
        ("open_ended", "GQA_TestDev_Balanced", {}, f"What?\n{SHORT}"),
        ("open_ended", "MMVet", {}, "What?\nGive a very brief answer."),
        ("yes_no", "POPE", {}, "What?"),
        ("yes_no", "MME", {}, "What?\nGive a very brief answer."),
        ("yes_no", "HallusionBench", {}, "What?\nAnswer yes or no."),
        (
            "open_ended", "DocVQA_VAL", {"rules": False},
            f"What?\n{SHORT}\nGive a very brief answer.",
        ),
        (
            "open_ended", "DocVQA_VAL", {"rules": True},
            "Give a short and terse answer to the following question. Do not paraphrase or "
            "reformat the text you see in the image. Do not include any full stops. Just give the "
            f"answer without additional explanation. Question: What?\n{SHORT}",
        ),
    ],
)  # fmt: skip
def test_what_is_asked(task, benchmark, fields, text) -> None:
    asked = sample(task=task, benchmark=benchmark)
    assert SmolVLM(**fields).format_question(asked) == text


@pytest.mark.parametrize("benchmark", ["ChartQA_TEST", "TextVQA_VAL"])
def test_rules_for_answers(benchmark) -> None:
    asked = sample(benchmark=benchmark)
    text = SmolVLM().format_question(asked)
    assert text.endswith(f".\nQuestion: What?\n{SHORT}")
    assert text.count("\n-") == {"ChartQA_TEST": 10, "TextVQA_VAL": 6}[benchmark]
    assert Idefics3().format_question(asked) == f"What?\n{SHORT}\nGive a very brief answer."


@pytest.mark.parametrize(
    ("benchmark", "hint", "expected"),
    [
        ("BLINK", "", f"{CHOICE}Please select the correct answer from the options above.|"),
        (
            "MMStar", "",
            "Question: Which?\nChoices:\nA. cat\nB. a dog\nAnswer with the letter.| Answer:",
        ),
        (
            "MMBench_DEV_EN_V11", "Look.",
            "Question: Which?\nHint: Look.\nChoices:\nA. cat\nB. a dog\nAnswer with a letter."
            "| Answer:",
        ),
        (
            "MMMU_DEV_VAL", "",
            "Which?\nChoices:\nA. cat\nB. a dog\nAnswer with the letter.| Answer:",
        ),
    ],
)  # fmt: skip
def test_multiple_choice(benchmark, hint, expected) -> None:
    asked = sample(
        noise((5, 5)), noise((6, 6)), task="multiple_choice", question="Which?", hint=hint,
        options=("cat", "a dog"), benchmark=benchmark,
    )  # fmt: skip
    text, answer = expected.split("|")
    shown = "<image><image>"
    if benchmark == "MMMU_DEV_VAL":
        shown = " Question: <image 1>:<image>\n<image 2>:<image>\n"
    prompt = f"User:{shown}{text}<end_of_utterance>\nAssistant:{answer}"
    assert SmolVLM().prompt(None, asked) == Idefics3().prompt(None, asked) == prompt


def test_a_run_of_grounding_says_so_once() -> None:
    data = {task: {"dataset": Shapes(task=task)} for task in ("grounding", "yes_no")}
    for dataset, count in (
        (Shapes(task="grounding"), 1), (Shapes(task="yes_no"), 0),
        (TaskGroup(tasks=data | {"more": data["grounding"]}), 1),
    ):  # fmt: skip
        parts: Any = SimpleNamespace(dataset=dataset, model=SmolVLM())
        assert len(Parts.remarks.fget(parts)) == count  # type: ignore[attr-defined]


def test_grounding_has_a_remark() -> None:
    (remark,) = SmolVLM().remarks("grounding")
    assert remark.startswith("SmolVLM was not trained to write boxes, and no format is published")
    assert SmolVLM().remarks("yes_no") == ()
