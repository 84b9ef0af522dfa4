"""Video benchmarks in the published layout: every question, its clip, and what can be wrong."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from published_videos import (
    CHARADES,
    LONGVIDEOBENCH,
    MVBENCH,
    VIDEOMME,
    WRITERS,
    mvbench_rows,
    write_all,
    write_clip,
    write_mvbench,
    write_table,
)
from test_conf import CONF, composed

from ivcp.core.errors import UserError
from ivcp.core.types import BrokenSample, Sample

SETS = [
    path.stem
    for path in sorted((CONF / "dataset").glob("*.yaml"))
    if "dataset.videos" in path.read_text(encoding="utf-8") or "  videos: null" in path.read_text()
]
PARQUET = "test-00000-of-00001.parquet"
FRAMES = "\nThese are the frames of a video. "
SELECT = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\n"
)
BALLS = "Question: How many balls?\nA. One.\nB. Two.\nC. Three.\nD. Four.\nAnswer: "
LETTER = "Answer with the option's letter from the given choices directly."
WATCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail "
    "and movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n"
)
ATTENTION = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, "
    "select the best option that accurately addresses the question."
)
PROMPTS = {  # of the first question of each set; source: the facts about VLMEvalKit and lmms-eval
    "videomme": f"{FRAMES}{SELECT}{BALLS}",
    "mvbench": f"{WATCH}Question: What is it?\nOptions:\n(A) a cat\n(B) a dog\n(C) a hen\n"
    "Only give the best option.Best option:(",
    "longvideobench_val": f"What is on the desk?\nA. a pen\nB. a cup\n{LETTER}",
    "mlvu": f"{ATTENTION}Question: What color is it?\nOptions:\n(A) Red\n(B) Blue\n"
    "Only give the best option.",
    "egoschema_subset": "What does c do?\nA. c does 0 things.\nB. c does 1 things.\n"
    f"C. c does 2 things.\nD. c does 3 things.\nE. c does 4 things.\n{LETTER}",
    "tempcompass_choice": "What does it do?\nA. sits\nB. runs\nC. eats\n"
    "Please directly give the best option:",
    "tempcompass_yes_no": "Is it running?\nPlease answer yes or no:",
    "tempcompass_matching": "Which caption matches the video better?\n"
    "Option 1: It sits, then runs.\nOption 2: It runs, then sits.\n"
    "Please directly give the best option:",
    "charades_sta": "",
}
ANSWERS = {  # ids and answers of all questions
    "videomme": [("001-1", "B"), ("001-2", "B"), ("002-1", "B")],
    "mvbench": [
        (f"{task}-{number}", answer)
        for task in ("action_sequence", "object_existence", "fine_grained_pose",
                     "episodic_reasoning")
        for number, answer in enumerate("BA")
    ],
    "longvideobench_val": [("x1_0", "A"), ("x1_1", "B")],
    "mlvu": [("plotQA-0", "B"), ("plotQA-1", "B"), ("count-0", "B")],
    "egoschema_subset": [("0a3", "D"), ("0a0", "A")],
    "tempcompass_choice": [("0", "B")],
    "tempcompass_yes_no": [("0", "Yes")],
    "tempcompass_matching": [("0", "B")],
    "charades_sta": [("0", (24.3, 30.4)), ("1", (0.0, 1.5))],
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_all(tmp_path_factory.mktemp("published"))


def load(name: str, root: Path, *words: str) -> Any:
    return instantiate(composed(f"dataset={name}", f"data.root={root}", *words).dataset)


def samples(data: Any) -> list[Sample]:
    return [data[index] for index in range(len(data))]


def reason(data: Any, index: int) -> str:
    """Why a question cannot be evaluated; its id and labels are known all the same."""
    with pytest.raises(BrokenSample) as caught:
        data[index]
    assert caught.value.sample.id == data.sample_id(index)
    assert caught.value.sample.videos == ()
    return str(caught.value.__cause__)


def test_every_set_has_its_expectation() -> None:
    assert set(SETS) == set(PROMPTS) == set(ANSWERS)


@pytest.mark.parametrize("name", SETS)
def test_every_question_of_the_published_layout(name, published) -> None:
    data = load(name, published)
    read = samples(data)
    assert [(sample.id, sample.answer) for sample in read] == ANSWERS[name]
    assert [data.sample_id(index) for index in range(len(data))] == [sample.id for sample in read]
    assert read[0].prompt == PROMPTS[name]
    for sample in read:
        assert (sample.task, sample.images, sample.benchmark) == (data.task, (), data.benchmark)
        (video,) = sample.videos
        assert video.path.exists()
        assert video.path.stem == Path(sample.labels["image_id"]).stem
        clip = video.read(lambda total, rate: [0, total - 1])
        assert clip.frames.shape == (2, 3, 56, 56)
    assert data.notes[0].endswith("are published.")
    assert len(data.notes) == 1
    assert len(data.identity) == 64


@pytest.mark.parametrize("name", SETS)
def test_every_yaml_states_every_field(name) -> None:
    config = OmegaConf.load(CONF / "dataset" / f"{name}.yaml").dataset
    target = get_class(config.pop("_target_"))
    assert set(config) == {field.name for field in fields(target)}


def test_options_stand_without_letters_and_labels_break_results_down(published) -> None:
    first = load("videomme", published)[0]
    assert first.options == ("One.", "Two.", "Three.", "Four.")
    assert first.labels == {
        "duration": "short", "domain": "Knowledge", "sub_category": "Law",
        "task_type": "Counting Problem", "image_id": "aaa",
    }  # fmt: skip
    assert load("egoschema_subset", published)[0].options[4] == "c does 4 things."
    assert load("tempcompass_choice", published)[0].options == ("sits", "runs", "eats")
    assert load("mlvu", published)[2].labels["task_type"] == "count"
    assert load("longvideobench_val", published)[0].labels["duration_group"] == "15"


def test_the_suite_has_every_set(published) -> None:
    group = load("video", published)
    names = list(composed("dataset=video").dataset.tasks)
    assert set(names) == set(SETS)
    assert {sample.labels["task"] for sample in samples(group)} == set(names)


@pytest.mark.parametrize("branch", ["main", "video"])
def test_both_branches_of_mvbench(branch, tmp_path) -> None:
    write_mvbench(tmp_path, branch)
    videos = {
        sample.labels["task_type"]: sample.videos[0]
        for sample in samples(load("mvbench", tmp_path))
    }
    parts = {task: (video.start, video.stop, video.rate) for task, video in videos.items()}
    plain = dict.fromkeys(MVBENCH, (0.0, None, None))
    main = {"action_sequence": (0.5, 1.5, None), "episodic_reasoning": (0.5, 1.5, 3.0)}
    assert parts == (plain | main if branch == "main" else plain)


def test_a_partial_set_is_named_so(tmp_path) -> None:
    home = write_mvbench(tmp_path)
    (home / "video" / "nturgbd" / "clip.mp4").unlink()
    data = load("mvbench", tmp_path)
    assert data.notes[1] == (
        "The set is partial: 2 of 8 questions of MVBench have no clip here and count as wrong "
        "(fine_grained_pose 2)."
    )
    assert "Expected the clip nturgbd/clip.mp4 in" in reason(data, 4)
    assert data[0].answer == "B"


def test_the_table_of_longvideobench_has_options_in_columns(tmp_path) -> None:
    home = tmp_path / "LongVideoBench"
    rows = [
        {key: value for key, value in row.items() if key != "candidates"}
        | {"option0": "a pen", "option1": "a cup", **dict.fromkeys(("option2", "option3"), "N/A")}
        for row in LONGVIDEOBENCH
    ]
    write_table(home / "validation-00000-of-00001.parquet", rows)
    write_clip(home / "videos" / "x1.mp4")
    assert load("longvideobench_val", tmp_path)[1].options == ("a pen", "a cup")


@pytest.mark.parametrize(
    ("count", "listed"), [(1, "it falls down"), (7, "the ball is red\nit falls down")]
)
def test_subtitles_of_uniform_moments(count, listed, published) -> None:
    words = ("dataset.subtitles=true", f"dataset.subtitle_frames={count}")
    data = load("videomme", published, *words)
    subtitles = f"This video's subtitles are listed below:\n{listed}\n"
    assert data[0].prompt == f"{FRAMES}{subtitles}{SELECT}{BALLS}"
    assert data[2].prompt == PROMPTS["videomme"]
    assert data.notes[1].startswith("1 of 2 clips have no subtitles in ")


def change(rows: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    """The rows with another first sample."""
    return [rows[0] | changes, *rows[1:]]


BROKEN: list[tuple[str, str, list[dict[str, Any]], str]] = [
    ("longvideobench_val", "LongVideoBench/lvb_val.json", change(LONGVIDEOBENCH, **changes), why)
    for changes, why in (
        ({"correct_choice": 2}, "Expected a correct_choice from 0 to 1 in row 0 .*; got 2"),
        ({"correct_choice": "A"}, "from 0 to 1 in row 0 of .*; got 'A'"),
        ({"question": 5}, "Expected a text in the column question of row 0"),
        ({"candidates": "a pen"}, "Expected a list of options in row 0 .*; got 'a pen'"),
        ({"candidates": [["a"], {}]}, "Expected a list of options in row 0"),
        ({"candidates": None}, "Expected a list of options in row 0 .*; got None"),
        ({"video_path": "absent.mp4"}, "Expected the clip absent.mp4 in .*; it is absent"),
        ({"video_path": None}, "Expected the clip None in"),
        ({"video_path": ""}, "Expected the name of a clip; got an empty one"),
        ({"video_path": "../../secret.mp4"}, "lies outside of"),
        ({"video_path": "a\0b.mp4"}, "Expected the path of a file"),
    )
]
BROKEN += [
    ("videomme", f"Video-MME/videomme/{PARQUET}", change(VIDEOMME, answer="E"), "letters A, B, C"),
    (
        "mvbench", "MVBench/json/action_sequence.json",
        change(mvbench_rows("action_sequence", False), answer="a cow"),
        r"Expected one of the options \['a cat', 'a dog', 'a hen'\] as answer .*; got 'a cow'",
    ),
    (
        "mvbench", "MVBench/json/action_sequence.json",
        change(mvbench_rows("action_sequence", False), start=3.0),
        "Expected a start before an end, in seconds; got 3.0 and 1.5",
    ),
    (
        "charades_sta", f"charades_sta/data/{PARQUET}", change(CHARADES, timestamp=[30.4, 24.3]),
        r"Expected a start and a later end, in seconds, in row 0 .*; got \[30.4, 24.3\]",
    ),
    (
        "charades_sta", f"charades_sta/data/{PARQUET}", change(CHARADES, timestamp=[1.0]),
        r"a start and a later end, .* got \[1.0\]",
    ),
    (
        "charades_sta", f"charades_sta/data/{PARQUET}", change(CHARADES, caption=" "),
        "Expected a text in the column question of row 0",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "rows", "why"), BROKEN)
def test_a_broken_row_is_one_failure(name, file, rows, why, tmp_path) -> None:
    WRITERS[name](tmp_path)
    write_clip(tmp_path.parent / "secret.mp4")
    write_table(tmp_path / file, rows)
    data = load(name, tmp_path)
    assert re.search(why, reason(data, 0))
    assert data[1].videos


def test_a_row_of_another_kind_is_one_failure(tmp_path) -> None:
    home = WRITERS["longvideobench_val"](tmp_path)
    write_table(home / "lvb_val.json", ["text", *LONGVIDEOBENCH, {"id": "y"}])
    data = load("longvideobench_val", tmp_path)
    assert "to have id, video_path, question, correct_choice; got 'text'" in reason(data, 0)
    assert "video_path, question, correct_choice are missing" in reason(data, 3)
    assert [data.sample_id(n) for n in range(4)] == ["0", "x1_0", "x1_1", "y"]
    assert "2 of 4 questions of LongVideoBench have no clip" in data.notes[1]


def remove_clips(home: Path) -> None:
    for file in [*home.rglob("*.mp4"), *home.rglob("*.jpg")]:
        file.unlink()
    for folder in home.rglob("castle_s01"):
        folder.rmdir()


def spoil(home: Path) -> None:
    for file in (*home.rglob("*.parquet"), *home.rglob("*.json")):
        file.write_bytes(b"no table")


def empty(home: Path) -> None:
    for file in (*home.rglob("*.parquet"), *home.rglob("*.json")):
        file.unlink()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_clips, "None of the clips of .* questions is in .*; unpack the archives of"),
        (spoil, r"is no (parquet file|JSON) that can be read .*; get it from hf download"),
        (empty, r"Expected the file .*; get it by `hf download|holds no question of"),
    ],
)
def test_a_set_that_cannot_be_used_is_one_sentence(name, damage, sentence, tmp_path) -> None:
    (home,) = {WRITERS[writer](tmp_path) for writer in WRITERS if name.startswith(writer)}
    damage(home)
    with pytest.raises(UserError, match=sentence):
        len(load(name, tmp_path))


def test_an_absent_folder_says_where_to_get_it(tmp_path) -> None:
    command = "hf download --repo-type dataset lmms-lab/TempCompass --local-dir TempCompass"
    with pytest.raises(UserError, match=f"Expected the folder .*TempCompass; get it by `{command}"):
        len(load("tempcompass_choice", tmp_path))


def test_sets_and_clips_may_lie_elsewhere(published, tmp_path) -> None:
    home = published / "LongVideoBench"
    data = load("longvideobench_val", tmp_path, f"dataset.folder={home}")
    assert data[0].videos
    write_clip(tmp_path / "clips" / "x1.mp4")
    words = (f"dataset.folder={home}", f"dataset.videos={tmp_path / 'clips'}")
    assert load("longvideobench_val", tmp_path, *words)[0].videos[0].path.parent.name == "clips"
    with pytest.raises(UserError, match=r"dataset\.videos must be a folder with clips"):
        len(load("longvideobench_val", tmp_path, f"dataset.folder={home}", "dataset.videos=/no"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("videomme", "dataset.subtitle_frames=0"), "subtitle_frames must be at least 1; got 0"),
        (("videomme", "dataset.subtitles=3"), "subtitles must be true or false; got 3"),
        (("tempcompass_choice", "dataset.part=captioning"), "part must be one of multi-choice"),
        (("mvbench", "dataset.rows=many"), "rows must be a whole number or null"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(words, sentence, tmp_path) -> None:
    with pytest.raises(Exception, match=sentence):
        load(words[0], tmp_path, *words[1:])


def test_equal_ids_are_refused_and_a_row_without_one_has_its_number(tmp_path) -> None:
    home = WRITERS["longvideobench_val"](tmp_path)
    write_table(home / "lvb_val.json", [LONGVIDEOBENCH[0]] * 2)
    with pytest.raises(UserError, match="has the id x1_0 twice"):
        len(load("longvideobench_val", tmp_path))
    write_table(home / "lvb_val.json", [LONGVIDEOBENCH[0], LONGVIDEOBENCH[1] | {"id": None}])
    data = load("longvideobench_val", tmp_path)
    assert [data.sample_id(n) for n in range(2)] == ["x1_0", "1"]


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_read_before_the_first_index(name, tmp_path) -> None:
    data = load(name, tmp_path)
    assert data.has_videos
    assert data.task in ("multiple_choice", "yes_no", "temporal_grounding")
