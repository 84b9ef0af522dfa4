"""What is drawn together for confidence intervals: images, not questions."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from recorded_answers import recorded, score_rows
from test_benchmarks import encoded_image
from test_conf import composed
from test_every_metric import METRICS, some_answers

from ivcp.core.metric import ScoredAnswer, to_frame
from ivcp.metrics.circular import CircularMetrics
from ivcp.metrics.pope import PopeMetrics

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks.md"


@pytest.mark.parametrize("metric_class", METRICS)
def test_answers_about_one_image_are_one_unit_and_the_value_stays(metric_class) -> None:
    metric = metric_class()
    answers = some_answers(metric_class)
    labelled = [
        replace(answer, labels={**answer.labels, "image_id": f"image {number // 3}"})
        for number, answer in enumerate(answers)
    ]
    alone, together = (
        metric.sufficient_statistics(to_frame(rows)).to_numpy(dtype=float)
        for rows in (answers, labelled)
    )
    assert np.allclose(alone.sum(0), together.sum(0))
    if np.array_equal(alone, together):  # the metric puts answers together by labels of its own
        assert len(alone) < len(answers)
    else:
        assert len(together) <= min(len(alone), -(-len(answers) // 3)) < len(answers)


def test_the_images_of_pope_are_its_units() -> None:
    rows = score_rows(PopeMetrics(), "pope")
    paths = [row["input"]["image_path"] for row in recorded("pope")["rows"]]
    rows = [
        replace(row, labels={**row.labels, "image_id": path})
        for row, path in zip(rows, paths, strict=True)
    ]
    statistics = PopeMetrics().sufficient_statistics(to_frame(rows))
    assert len(statistics) == len(set(paths)) < len(rows)


def test_questions_of_an_image_come_with_all_their_rotations() -> None:
    cells = [("1", "x", 1), ("1000001", "x", 1), ("2", "x", 1), ("1000002", "x", 0), ("3", "y", 1)]
    frame = to_frame(
        ScoredAnswer("A", "A", float(score), {"index": index, "image_id": image})
        for index, image, score in cells
    )
    statistics = CircularMetrics().sufficient_statistics(frame)
    assert statistics.to_numpy().tolist() == [[1, 2], [1, 1]]


@pytest.mark.parametrize("way", ["content", "reference", "path"])
def test_a_file_tells_which_questions_share_an_image(way, tmp_path) -> None:
    images = [encoded_image(number) for number in (0, 0, 1, 0)]
    rows = [
        {"index": number, "question": "Is it?", "answer": "Yes", "image": image}
        for number, image in enumerate(images)
    ]
    for row in rows:
        first = images.index(row["image"])
        if way == "reference" and row["index"] != first:
            row["image"] = first
        elif way == "path":
            (tmp_path / f"{first}.png").write_bytes(base64.b64decode(row.pop("image")))
            row["image_path"] = f"{first}.png"
    pd.DataFrame(rows).to_csv(tmp_path / "set.tsv", sep="\t", index=False)
    cfg = composed("dataset=pope", f"dataset.file={tmp_path}/set.tsv", "data.verify=false")
    dataset = instantiate(cfg.dataset)
    ids = [dataset[number].labels["image_id"] for number in range(4)]
    assert [ids.index(name) for name in ids] == [0, 0, 2, 0]


def test_the_documentation_names_the_unit_of_the_task_group() -> None:
    text = DOCS.read_text()
    table = text[text.index("bootstrap unit | why") :]
    tasks = composed("dataset=general_vqa").dataset.tasks
    names = {str(task.dataset.name) for task in tasks.values()}
    assert len(names) > 20
    assert {name for name in names if name not in table} == set()
