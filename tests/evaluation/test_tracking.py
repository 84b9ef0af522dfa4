from __future__ import annotations

import csv
import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from made_results import CONFIG, made_results
from PIL import Image

from ivcp.core.errors import UserError
from ivcp.evaluation import tracking
from ivcp.evaluation.tracking import SHORT, Tracker
from ivcp.metrics.exact_match import ExactMatch
from ivcp.pruners.random import RandomPruning
from ivcp.results.prediction import Prediction
from ivcp.results.run_folder import RunFolder

PREDICTIONS = [
    Prediction(index=index, id=f"s{index}", question=f"q{index}", prediction=f"a{index}", score=0)
    for index in (0, 2)
]


class Recorder:
    """A logger that knows everything and keeps it."""

    def __init__(self) -> None:
        self.tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self.images: dict[str, Any] = {}
        self.finished = ""
        self.steps: list[tuple[int, dict[str, float]]] = []

    def log_hyperparams(self, config) -> None:
        self.config = config

    def log_metrics(self, metrics, step) -> None:
        self.metrics = metrics
        self.steps.append((step, metrics))

    def log_summary(self, values) -> None:
        self.summary = values

    def log_table(self, key, columns, data) -> None:
        self.tables[key] = columns, data

    def log_image(self, key, images, caption) -> None:
        self.images[key] = list(zip([image.size for image in images], caption, strict=True))

    def finalize(self, status) -> None:
        self.finished = status


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "pictures").mkdir()
    for name, size in (("000_s0.png", (300, 700)), ("002_s2_2.png", (90, 20))):
        Image.new("RGB", size).save(tmp_path / "pictures" / name)
    return RunFolder(tmp_path)


@pytest.fixture
def logger(folder: RunFolder) -> Recorder:
    recorder = Recorder()
    names = {"model": "tiny", "pruner": "random", "dataset": "shapes"}
    parts = SimpleNamespace(pruner=RandomPruning(layer=2), names=names, config=CONFIG)
    job = SimpleNamespace(parts=parts, folder=folder)
    tracker = Tracker.start(lambda save_dir: recorder, job)
    assert recorder.config == {**CONFIG, "names": {**names, "ratio": "0.5", "layers": [2]}}
    tracker.finish(made_results(), PREDICTIONS)
    assert recorder.finished == "success"
    return recorder


def test_the_configuration_holds_the_whole_setup(logger) -> None:
    assert logger.config["dataset"] == {"size": 3}
    assert logger.config["names"] == {
        "model": "tiny",
        "pruner": "fastv",
        "dataset": "shapes",
        "metric": "acc@0.5",
        "series": "tiny shapes fastv before layer 2",
    }
    assert (logger.config["device"], logger.config["versions"]) == ("cpu", {"torch": "2"})


def test_the_log_holds_every_number_under_its_prefix(logger) -> None:
    assert logger.metrics["metrics/acc@0.5"] == 0.75
    assert logger.metrics["efficiency/pruning_overhead_ms/q1"] == 1.0
    assert logger.metrics["tokens/keep_ratio"] == 0.5
    assert "metrics/recall" not in logger.metrics
    assert all("/" in name for name in logger.metrics.keys() - {"failed_samples"})


def test_the_summary_has_short_names_that_do_not_depend_on_the_dataset(logger) -> None:
    assert logger.summary["primary_metric"] == 0.75
    assert logger.summary["kv_ratio"] == 0.55
    assert logger.summary["flops_ratio"] == 0.6
    assert logger.summary["prefill_ms"] == 2.0
    extra = {"primary_metric", "seconds", "samples", "failed_samples"}
    assert logger.summary.keys() == SHORT.keys() | extra


def test_a_number_that_is_not_there_is_left_out_of_the_summary(tmp_path: Path) -> None:
    made = Recorder()
    Tracker(made, RunFolder(tmp_path)).finish(made_results(None, layers=[]), PREDICTIONS)
    assert "primary_metric" not in made.summary
    columns, ((*row,),) = made.tables["result"]
    assert dict(zip(columns, row, strict=True))["primary_metric"] is None
    assert made.config["names"]["series"] == "tiny shapes fastv"
    assert not made.images


def test_one_table_has_a_row_a_run_and_one_a_row_a_sample(logger) -> None:
    columns, ((*row,),) = logger.tables["result"]
    told = dict(zip(columns, row, strict=True))
    assert (told["series"], told["keep_ratio"]) == ("tiny shapes fastv before layer 2", 0.5)
    columns, rows = logger.tables["predictions"]
    assert [row[columns.index("id")] for row in rows] == ["s0", "s2"]


def test_overlays_have_one_size_and_the_captions_of_their_samples(logger) -> None:
    size = tracking.PICTURE_SIZE
    assert logger.images["kept_tokens"] == [(size, "q0 → a0"), (size, "q2 → a2")]


def test_a_run_that_fails_is_closed_as_failed(folder: RunFolder) -> None:
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError), Tracker(recorder, folder):
        _ = 1 / 0
    assert recorder.finished == "failed"


def test_a_full_disk_under_a_logger_is_one_sentence(folder: RunFolder, monkeypatch) -> None:
    def full(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CSVLogger, "save", full)
    logger = CSVLogger(folder.path, name="csv", version="")
    with pytest.raises(UserError, match="The disk is full"):
        Tracker(logger, folder).finish(made_results(), PREDICTIONS)


def test_a_logger_that_knows_numbers_alone_gets_them(folder: RunFolder) -> None:
    made = CSVLogger(folder.path, name="csv", version="")
    Tracker(made, folder).finish(made_results(), PREDICTIONS)
    (row,) = csv.DictReader((folder.path / "csv" / "metrics.csv").open())
    assert float(row["efficiency/kv_cache_ratio"]) == 0.55
    assert "series: tiny shapes fastv" in (folder.path / "csv" / "hparams.yaml").read_text()


def test_the_running_metric_is_read_from_the_files_of_all_processes(
    folder: RunFolder, monkeypatch
) -> None:
    monkeypatch.setattr(tracking, "EVERY", 0.02)
    recorder = Recorder()
    carried = Prediction(index=0, id="a", score=1).line()
    (folder.path / "predictions.earlier.jsonl").write_text(carried)
    (folder.path / "predictions.mine.jsonl").write_text(carried * 9)  # a user's copy
    lines = [Prediction(index=n, id="a", score=n / 2).line() for n in (1, 2)]
    with Tracker(recorder, folder).watching(ExactMatch()):
        for rank, text in enumerate((lines[0], lines[1][:30])):
            (folder.path / f"predictions.{rank}.jsonl").write_text(text)
        wait_for(lambda: recorder.steps)
        (folder.path / "predictions.1.jsonl").write_text(lines[1])
        wait_for(lambda: recorder.steps[-1][0] == 3)
    assert [step for step, _ in recorder.steps] == [2, 3]
    assert recorder.steps[0][1]["running/accuracy"] == 0.75
    assert recorder.steps[1][1]["running/samples"] == 3
    assert recorder.steps[1][1]["running/samples_per_second"] > 0


def wait_for(condition) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
