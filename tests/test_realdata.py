"""Real photos and questions, from the file through prompt and packaged model to the score."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import run_py
from untrained import save_untrained

from ivcp.evaluation.module import Evaluation

CHOOSE = "Please select the correct answer from the options above."


def cells(path: Path, delimiter: str = "\t") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Evaluates the packaged model: the lines of predictions.jsonl and metrics.json."""

    def call(*words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        quick = (
            "trainer=cpu", "logger=none", "workers=0", "pictures=0", "batch_size=10",
            "generation.max_new_tokens=40", f"model.max_pixels={192 * 192}",
            f"hydra.run.dir={tmp_path / 'run'}",
        )  # fmt: skip
        assert run_py(*quick, *words) == 0
        lines = (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines], json.loads(
            (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")
        )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return call


def laid_out(root: Path, name: str, table: Path, images: Path) -> str:
    """A data root with a benchmark file and its images beside it."""
    root.mkdir()
    shutil.copy(table, root / f"{name}.tsv")
    (root / "images").mkdir()
    (root / "images" / name).symlink_to(images, target_is_directory=True)
    return f"data.root={root}"


def overlap(a: list[float], b: list[float]) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    return wide * high / both if both else 0.0


def test_fifty_real_expressions(realdata, run) -> None:
    derived = realdata / "derived"
    lines, report = run(
        "dataset=refcoco_val",
        f"dataset.annotations={derived / 'finetune_refcoco_real50.json'}",
        f"data.coco={derived / 'train2014'}",
    )
    rows = cells(derived / "real50.csv", ",")
    assert len(lines) == len(rows) == 50
    assert report["run"]["failed_samples"] == 0
    for line, row in zip(lines, rows, strict=True):
        x, y, w, h = (float(row[name]) for name in "xywh")
        assert line["answer"] == pytest.approx([x, y, x + w, y + h])
        asked = f"\nLocate {row['expression']} and output the bbox coordinates in JSON format."
        assert asked in line["prompt"]
        assert line["image_size"] == [int(row["img_width"]), int(row["img_height"])]
        read = line["parsed"]
        assert line["score"] == pytest.approx(overlap(read, line["answer"]) if read else 0.0)
    scores = [line["score"] for line in lines]
    assert report["metrics"]["acc@0.5"] == sum(score >= 0.5 for score in scores) / 50
    assert report["metrics"]["mean_iou"] == pytest.approx(sum(scores) / 50)
    assert report["run"]["notes"]  # says that the published split has more expressions


def test_right_answers_to_real_expressions_are_right(realdata, run, monkeypatch, tmp_path) -> None:
    """The model's text is replaced by the true box in whole pixels of its frame."""
    read = Evaluation._read

    def true_box(self, text, sample, frame):
        x, y = frame.width / frame.image_width, frame.height / frame.image_height
        box = [round(side * scale) for side, scale in zip(sample.answer, (x, y, x, y), strict=True)]
        return read(self, f'```json\n[{{"bbox_2d": {box}, "label": "it"}}]\n```', sample, frame)

    monkeypatch.setattr(Evaluation, "_read", true_box)
    derived = realdata / "derived"
    _, report = run(
        "dataset=refcoco_val",
        f"dataset.annotations={derived / 'finetune_refcoco_real50.json'}",
        f"data.coco={derived / 'train2014'}",
        "generation.max_new_tokens=1",
        f"model.path={save_untrained(tmp_path / 'model', layers=2)}",
        "model.max_pixels=null",  # boxes in whole pixels of a small frame would be less exact
    )
    assert report["metrics"]["acc@0.9"] == report["metrics"]["center_acc"] == 1
    assert 0.98 < report["metrics"]["mean_iou"] < 1


def test_real_pope_rows_are_asked_once_and_scored_in_each_category(realdata, run, tmp_path) -> None:
    mini = realdata / "pope_mini"
    table = mini / "POPE_mini_meta.tsv"
    root = laid_out(tmp_path / "data", "POPE", table, mini / "images")
    lines, report = run("dataset=pope", "data.verify=false", root)
    rows = cells(table)
    assert [line["id"] for line in lines] == [row["index"] for row in rows]
    assert report["run"]["failed_samples"] == 0
    counts, right = Counter(), Counter()
    for line, row in zip(lines, rows, strict=True):
        assert f"{row['question']} Please answer yes or no." in line["prompt"]
        assert line["answer"] == row["answer"]
        words = line["prediction"].lower().replace(".", " ").split()
        read = {("yes", True): "Yes", ("no", True): "No"}.get(
            ("yes" if "yes" in words else "no", ("yes" in words) != ("no" in words))
        )
        assert line["parsed"] == read
        for category in row["category"].split(","):
            counts[category] += 1
            right[category] += read == row["answer"]
    assert counts.total() == 108
    assert report["metrics"]["accuracy"] == pytest.approx(right.total() / 108)
    for category, count in counts.items():
        value = report["metrics"][f"category/{category}/accuracy"]
        assert value == pytest.approx(right[category] / count)


def test_real_mmbench_rows(realdata, run, tmp_path) -> None:
    folder = realdata / "mmbench_samples"
    table = folder / "mmbench_samples.tsv"
    root = laid_out(tmp_path / "data", "MMBench_DEV_EN_V11", table, folder / "images")
    lines, report = run("dataset=mmbench_dev_en_v11", "data.verify=false", root)
    rows = cells(table)
    assert len(lines) == len(rows) == 20
    assert report["run"]["failed_samples"] == 0
    for line, row in zip(lines, rows, strict=True):
        options = [f"{letter}. {row[letter]}\n" for letter in "ABCD" if row[letter]]
        hint = f"Hint: {row['hint']}\n" if row["hint"] else ""
        text = f"{hint}Question: {row['question']}\nOptions:\n{''.join(options)}{CHOOSE}"
        assert text in line["prompt"]
        assert line["score"] == float(line["parsed"] == row["answer"])
    right = sum(line["score"] for line in lines)
    assert report["metrics"]["accuracy"] == right / 20
    own = [line["score"] for line in lines if line["labels"]["category"] == "OCR"]
    assert report["metrics"]["category/OCR"] == sum(own) / len(own)
