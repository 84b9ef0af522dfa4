"""Hands a run to an experiment logger: its configuration, its progress, its results."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.pytorch.loggers import Logger
from PIL import Image, ImageOps

from ivcp.core.budget import in_words
from ivcp.core.budgeted import Budgeted
from ivcp.core.metric import AnswerMetric, ScoredAnswer
from ivcp.core.pixels import open_image
from ivcp.evaluation.job import Job
from ivcp.results.comparability import flatten
from ivcp.results.files import full_disk_explained
from ivcp.results.prediction import Prediction
from ivcp.results.run_folder import PICTURES, RunFolder
from ivcp.results.schema import Results

COLUMNS = (
    "id", "task", "prompt", "answer", "prediction", "parsed", "score", "failed", "visual_tokens",
    "kept_tokens", "time_to_first_token_ms",
)  # fmt: skip
"""Fields of `Prediction` in the table of predictions."""

SHORT: Mapping[str, str] = MappingProxyType(
    {
        "keep_ratio": "tokens/keep_ratio",
        "layer_average_ratio": "tokens/layer_average_ratio",
        "kv_ratio": "efficiency/kv_cache_ratio",
        "flops_ratio": "efficiency/prefill_flops_ratio",
        "first_token_ms": "efficiency/time_to_first_token_ms/median",
        "prefill_ms": "efficiency/language_prefill_ms/median",
        "pruning_overhead_ms": "efficiency/pruning_overhead_ms/median",
        "decode_ms": "efficiency/decode_ms_per_token/median",
        "samples_per_second": "efficiency/samples_per_second",
        "peak_memory_bytes": "efficiency/peak_memory_bytes",
        "unparsed_rate": "metrics/unparsed_rate",
    }
)
"""Names in the summary, the same for every dataset, and the logged numbers that they repeat."""

EVERY = 10.0  # seconds between two looks at a run that goes on
PICTURE_SIZE = (960, 720)  # of logged overlays, which a page of them shows in one grid


class Tracker:
    """Logs one run.

    A logger that knows no summary, tables or images gets the rest.

    Args:
        logger: A Lightning logger, or None to log nowhere.
        folder: The run's folder.
    """

    def __init__(self, logger: Logger | None, folder: RunFolder) -> None:
        self.logger, self.folder = logger, folder

    @classmethod
    def start(cls, factory: Callable[..., Logger] | Mapping[str, Any] | None, job: Job) -> Tracker:
        """Make the logger and log what is known before the run.

        Args:
            factory: Makes the logger when given `save_dir`, perhaps by way of `named`, which is
                given what tells the run from others; None or empty logs nowhere.
            job: The run.

        Raises:
            UserError: The logger refuses the run.
        """
        pruner = job.parts.pruner
        layers = [stage.layer for stage in pruner.stages()]
        asked = f"{pruner.keep_ratio:g}"
        if isinstance(pruner, Budgeted):
            asked = in_words(pruner.keep_ratio, pruner.tokens, pruner.count, pruner.budget_over)
        names = {**job.parts.names, "ratio": asked, "layers": layers}
        if (named := getattr(factory, "named", None)) is not None:
            factory = named(names)
        if not callable(factory):
            return cls(None, job.folder)
        logger = factory(save_dir=job.folder.path)
        logger.log_hyperparams({**job.parts.config, "names": names})
        return cls(logger, job.folder)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Close the run as one that did not finish, if it was left by an error."""
        if error is not None and self.logger is not None:
            self.logger.finalize("failed")

    @contextmanager
    def watching(self, metric: AnswerMetric) -> Iterator[None]:
        """Log the running metric inside the block."""
        watch = None if self.logger is None else Watch(self.logger, self.folder, metric)
        try:
            yield
        finally:
            if watch is not None:
                watch.stop()

    def finish(self, results: Results, predictions: Sequence[Prediction]) -> None:
        """Log all numbers, a summary, two tables and the overlays, and close the run.

        The table `result` is one row, so that a chart over many runs can read it; `predictions` has
        one row a sample.
        """
        if (logger := self.logger) is None:
            return
        run = results.run
        with full_disk_explained(self.folder.path):
            logger.log_hyperparams(configuration(results))
            numbers = logged_numbers(results)
            logger.log_metrics(numbers, step=run.samples)
            summary = summary_of(results, numbers)
            if hasattr(logger, "log_summary"):
                logger.log_summary(summary)
            if hasattr(logger, "log_table"):
                values = {name: summary.get(name) for name in ("primary_metric", *SHORT)}
                row = {**names_of(results), **layer_of(results), **values}
                logger.log_table("result", columns=list(row), data=[list(row.values())])
                rows = [[_cell(getattr(item, name)) for name in COLUMNS] for item in predictions]
                logger.log_table("predictions", columns=list(COLUMNS), data=rows)
            paths = sorted((self.folder.path / PICTURES).glob("*.png"))
            if paths and hasattr(logger, "log_image"):
                texts = {item.index: f"{item.question} → {item.prediction}" for item in predictions}
                captions = [texts.get(_index(path), "") for path in paths]
                logger.log_image("kept_tokens", [framed(path) for path in paths], caption=captions)
            logger.finalize("success")
        self.logger = None


class Watch:
    """Reads the answers of a run as they are written, in a thread, and logs the metric so far.

    The files are what all processes of a run share, whoever started them.
    """

    def __init__(self, logger: Logger, folder: RunFolder, metric: AnswerMetric) -> None:
        self.logger, self.folder, self.metric = logger, folder, metric
        self.read: dict[Path, int] = {}  # bytes of each file that were read
        self.answers: list[ScoredAnswer] = []
        self._news()
        self.earlier = len(self.answers)  # which say nothing of this start's rate
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self.ended.set()
        self.thread.join()

    def _follow(self) -> None:
        started = time.monotonic()
        while not self.ended.wait(EVERY):
            if self._news():
                value = self.metric.values(self.answers)[self.metric.primary_metric]
                count = len(self.answers)
                rate = (count - self.earlier) / (time.monotonic() - started)
                running = {self.metric.primary_metric: value, "samples": count}
                running["samples_per_second"] = rate
                metrics = {f"running/{name}": number for name, number in running.items()}
                self.logger.log_metrics(metrics, step=count)

    def _news(self) -> bool:
        """Read the whole lines that were written since the last look."""
        before = len(self.answers)
        for path in self.folder.answer_files():
            start = self.read.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                lines = file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
            self.read[path] = start + sum(map(len, lines))
            self.answers += [Prediction.model_validate_json(line).scored() for line in lines]
        return len(self.answers) > before


def configuration(results: Results) -> dict[str, Any]:
    """The resolved configuration, and beside it what the run was made of and on."""
    run = results.run
    names = {"device", "dtype", "attention", "processes", "git", "versions"}
    return {**run.config, "names": names_of(results), **run.model_dump(include=names)}


def names_of(results: Results) -> dict[str, str]:
    """What tells a run from others; runs that differ in ratio or seed alone share `series`."""
    run = results.run
    layers = run.layer_names
    parts = [run.model, run.dataset, run.pruner, run.variant, layers and f"before layer {layers}"]
    return {
        "model": run.model,
        "pruner": run.pruner,
        "dataset": run.dataset,
        "metric": run.primary_metric.name,
        "series": " ".join(filter(None, parts)),
    }


def layer_of(results: Results) -> dict[str, str | int | None]:
    """The layer before which a run prunes, if it is one, and what runs over layers share."""
    run = results.run
    target = "" if run.unpruned or run.ratio is None else f"at {run.ratio:g}"
    parts = (run.model, run.dataset, run.pruner, run.variant, target)
    alone = len(run.layers) == 1 and not run.unpruned and not run.first_pass
    return {
        "layer": run.layers[0] if alone else None,
        "series_over_layers": " ".join(filter(None, parts)),
    }


def logged_numbers(results: Results) -> dict[str, float]:
    """All numbers of the results under joined names, such as `tokens/keep_ratio`."""
    blocks = results.model_dump(include={"metrics", "efficiency", "tokens"})
    numbers = {
        name: value
        for name, value in flatten(blocks, separator="/").items()
        if isinstance(value, int | float)
    }
    return {**numbers, "failed_samples": results.run.failed_samples}


def summary_of(results: Results, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that stand for a run, under the names in `SHORT` and four more."""
    run = results.run
    values = {"primary_metric": run.primary_metric.value, "seconds": run.seconds}
    values |= {"samples": run.samples, "failed_samples": run.failed_samples}
    values |= {name: numbers.get(source) for name, source in SHORT.items()}
    return {name: value for name, value in values.items() if value is not None}


def framed(path: Path) -> Image.Image:
    """An overlay in the middle of a picture of `PICTURE_SIZE`."""
    overlay = open_image(path).convert("RGB")
    return ImageOps.pad(overlay, PICTURE_SIZE, color="white")


def _index(path: Path) -> int:
    """Index of the sample that an overlay shows, with which its name begins."""
    return int(path.stem.partition("_")[0])


def _cell(value: Any) -> Any:
    """A table column has one type: boxes and missing values become text."""
    return value if isinstance(value, int | float | str) else json.dumps(value)
