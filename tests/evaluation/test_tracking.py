from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from ivcp.evaluation.records import Record
from ivcp.evaluation.tracking import SHORT, track

RECORDS = [
    Record(index=index, id=f"s{index}", question=f"q{index}", prediction=f"a{index}")
    for index in (0, 2)
]


def report(**run: Any) -> dict[str, Any]:
    """A made-up `metrics.json` with every number that `track` names."""
    times = {"median": 2.0, "q1": 1.0, "q3": None}
    return {
        "metrics": {"acc@0.5": 0.75, "unparsed_rate": 0.125, "recall": None},
        "efficiency": {
            "kv_cache_ratio": 0.55,
            "prefill_flops_ratio": 0.6,
            "language_prefill_ms": times,
            "pruning_overhead_ms": times,
            "time_to_first_token_ms": times,
            "decode_ms_per_token": times,
            "samples_per_second": 8.0,
            "peak_memory_bytes": 1000,
        },
        "tokens": {"keep_ratio": 0.5, "layer_average_ratio": 0.7},
        "run": {
            "model": "tiny",
            "pruner": "fastv",
            "dataset": "shapes",
            "layer": 2,
            "ratio": 0.5,
            "config": {"ratio": 0.5, "pruner": {"layer": 2}},
            "primary_metric": {"name": "acc@0.5", "value": 0.75},
            "seconds": 3.0,
            "samples": 2,
            "failed_samples": 0,
            "device": "cpu",
            "dtype": "float32",
            "attention": "sdpa",
            "processes": 1,
            "git": "abc",
            "versions": {"torch": "2"},
            **run,
        },
    }


class Recorder:
    """A logger that knows everything and keeps it."""

    def __init__(self) -> None:
        self.tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self.images: dict[str, Any] = {}
        self.finished = ""

    def log_hyperparams(self, config) -> None:
        self.config = config

    def log_metrics(self, metrics, step) -> None:
        self.metrics = metrics

    def log_summary(self, values) -> None:
        self.summary = values

    def log_table(self, key, columns, data) -> None:
        self.tables[key] = columns, data

    def log_image(self, key, images, caption) -> None:
        self.images[key] = dict(zip(images, caption, strict=True))

    def finalize(self, status) -> None:
        self.finished = status


@pytest.fixture
def logger() -> Recorder:
    made = Recorder()
    track(made, report(), RECORDS, [Path("000_s0.png"), Path("002_s2_2.png")])
    assert made.finished == "success"
    return made


def test_the_configuration_holds_the_whole_setup(logger) -> None:
    assert logger.config["pruner"] == {"layer": 2}
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


def test_a_number_that_is_not_there_is_left_out_of_the_summary() -> None:
    made = Recorder()
    track(made, report(primary_metric={"name": "acc@0.5", "value": None}, layer=None), RECORDS, [])
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


def test_a_picture_is_captioned_with_its_own_record(logger) -> None:
    assert logger.images["kept_tokens"] == {"000_s0.png": "q0 → a0", "002_s2_2.png": "q2 → a2"}


def test_a_logger_that_knows_numbers_alone_gets_them(tmp_path: Path) -> None:
    track(CSVLogger(tmp_path, name="csv", version=""), report(), RECORDS, [Path("000_s0.png")])
    (row,) = csv.DictReader((tmp_path / "csv" / "metrics.csv").open())
    assert float(row["efficiency/kv_cache_ratio"]) == 0.55
    assert "series: tiny shapes fastv" in (tmp_path / "csv" / "hparams.yaml").read_text()
