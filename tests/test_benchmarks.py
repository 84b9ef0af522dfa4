"""Every benchmark: its yaml loads a file in the real format and scores answers as upstream does."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.utils import instantiate
from PIL import Image
from recorded_answers import recorded, recordings, score_answer
from test_conf import CONF, composed

from ivcp.core.metric import AnswerMetric

NAMES = [
    path.stem
    for path in sorted((CONF / "dataset").glob("*.yaml"))
    if "tsv.TsvBenchmark" in path.read_text(encoding="utf-8")
]
RECORDED = recordings()
FILES = {  # dataset -> file of recorded answers and verdicts of its metric
    name: RECORDED[path]
    for name in NAMES
    if (path := composed(f"dataset={name}").metric._target_) in RECORDED
}
NOT_IN_A_FILE = {"prediction", "mode", "answers", "g_index"}


def encoded_image(seed: int = 0) -> str:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (seed, 90, 20)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def benchmark_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A TSV as VLMEvalKit has it: pandas writes it, each row carries its image."""
    frame = pd.DataFrame(rows).drop(columns=list(NOT_IN_A_FILE), errors="ignore")
    frame["image"] = encoded_image()
    if "prompt" not in frame:
        frame["prompt"] = frame["question"]  # only CV-Bench has it
    frame.to_csv(path, sep="\t", index=False)
    return path


def load(name: str, file: Path) -> tuple[Any, AnswerMetric]:
    cfg = composed(f"dataset={name}", f"dataset.file={file}", "data.verify=false")
    return instantiate(cfg.dataset), instantiate(cfg.metric)


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_real_format_is_scored_as_upstream_scores_it(name, tmp_path) -> None:
    golden = recorded(FILES[name])
    rows = [row["input"] for row in golden["rows"]]
    dataset, metric = load(name, benchmark_file(tmp_path / "set.tsv", rows))
    assert len(dataset) == len(rows)
    judged = []
    for index, row in enumerate(golden["rows"]):
        sample = dataset[index]
        assert sample.labels["index"] == str(row["input"]["index"])
        assert sample.images[0].mode == "RGB"
        judged.append(score_answer(metric, sample, str(row["input"]["prediction"])))
    values = metric.values(judged)
    scores = [one.score for one in judged]
    told = [row["upstream"] for row in golden["rows"]]
    if FILES[name] == "pope":
        whole = golden["overall_upstream"]["Overall"]
        assert values["f1"] == pytest.approx(whole["Overall"] / 100)
        assert values["accuracy"] == pytest.approx(whole["acc"] / 100)
    elif FILES[name] == "mme":
        whole = golden["overall_upstream"]
        assert values["perception"] == pytest.approx(whole["perception"])
        assert values["cognition"] == pytest.approx(whole["reasoning"])
    elif FILES[name] == "mmbench_circular":
        whole = golden["overall_upstream"]
        assert values["split/dev"] == pytest.approx(whole["dev"]["Overall"])
    elif FILES[name] == "mcq_vanilla":
        assert scores == [one["hit"] for one in told]
    elif FILES[name] == "hallusionbench":
        truths = [row["input"]["answer"] for row in golden["rows"]]
        read = [one["fn_extracted"] for one in told]
        assert scores == [float(a == b) for a, b in zip(truths, read, strict=True)]
    else:
        assert scores == pytest.approx([float(one["fn_score"]) for one in told])


def test_cv_bench_is_asked_in_its_own_words_and_averaged_over_sources(tmp_path) -> None:
    rows = [
        {
            "index": number, "question": "How many?", "A": "1", "B": "2", "answer": "A",
            "category": "Count", "source": source, "prompt": "How many? (A) 1 (B) 2",
        }
        for number, source in enumerate(("ADE20K", "ADE20K", "COCO"))
    ]  # fmt: skip
    dataset, metric = load("cvbench2d", benchmark_file(tmp_path / "set.tsv", rows))
    assert dataset[0].prompt == "How many? (A) 1 (B) 2"
    judged = [
        score_answer(metric, dataset[n], text) for n, text in enumerate(("(A)", "(B)", "(A)"))
    ]
    assert metric.values(judged)["mean_over_sources"] == 0.75


def test_mm_vet_without_a_judge_wants_the_words(tmp_path) -> None:
    rows = [
        {"index": "v1_0", "question": "Roots?", "answer": "-1 <AND> -5", "category": "ocr,math"},
        {"index": "v1_1", "question": "Animal?", "answer": "hare <OR> rabbit", "category": "rec"},
    ]
    dataset, metric = load("mmvet", benchmark_file(tmp_path / "set.tsv", rows))
    judged = [score_answer(metric, dataset[0], "-5, -1"), score_answer(metric, dataset[1], "a dog")]
    values = metric.values(judged)
    assert metric.judged_by == "model"
    assert (values["grade"], values["capability/math"], values["capability/rec"]) == (0.5, 1, 0)


def test_mmmu_has_open_questions_among_the_others(tmp_path) -> None:
    rows = [
        {"index": 1, "question": "Which?", "A": "x", "B": "y", "answer": "B", "split": "dev"},
        {"index": 2, "question": "Many?", "A": "", "B": "", "answer": "7", "split": "validation"},
    ]
    dataset, metric = load("mmmu_dev_val", benchmark_file(tmp_path / "set.tsv", rows))
    assert dataset[1].options == ("7", "Other Answers")
    judged = [score_answer(metric, dataset[0], "A"), score_answer(metric, dataset[1], "It is 7")]
    values = metric.values(judged)
    assert (values["split/dev"], values["split/validation"], values["accuracy"]) == (0, 1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_right_reply_to_a_question_of_the_file_scores_one(name, tmp_path) -> None:
    """With no other columns than every file has."""
    task = composed(f"dataset={name}").dataset.task
    row = {"index": 1, "question": "Is it?", "answer": "Yes", "category": "x", "split": "y"}
    right, wrong = "Yes", "No"
    if task == "multiple_choice":
        right, wrong = "B", "A"
        row |= {"answer": "B", "A": "eight", "B": "seven"}
    elif task == "open_ended":
        row["answer"] = str(["Yes"] * 10)  # TextVQA leaves each of ten out once
    dataset, metric = load(name, benchmark_file(tmp_path / "set.tsv", [row]))
    scores = [score_answer(metric, dataset[0], reply).score for reply in (right, wrong)]
    assert scores == [1, 0]
