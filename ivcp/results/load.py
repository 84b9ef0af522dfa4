"""Finished runs, read from their folders: typed, or as tables."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ivcp.core.errors import UserError
from ivcp.core.printable import printable
from ivcp.results.amounts import show
from ivcp.results.comparability import conditions, differences, differing, flatten
from ivcp.results.schema import Results, RunInfo

if TYPE_CHECKING:  # pandas and torch take seconds to import
    import pandas as pd

    from ivcp.results.prediction import Prediction

METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"
BEFORE = "before"
"""Folder of the results of a finished run while another one in its place is not finished."""
ROOTS = (Path("outputs"), Path("multirun"))
"""Where other runs are looked for."""
LARGEST = 64_000_000
"""Most bytes of a `metrics.json`; more is none of ours."""
LONGEST = 1000
"""Most characters of a sentence about a path."""


@dataclass(frozen=True, eq=False, repr=False)
class FinishedRun:
    """A run's folder and the contents of its `metrics.json`."""

    folder: Path
    results: Results

    def __repr__(self) -> str:
        info, metric = self.info, self.info.primary_metric
        pruned = not info.unpruned and info.ratio is not None
        method = f"{info.pruner} at {info.ratio:g}" if pruned else info.pruner
        value = show(metric.value, metric.unit)
        return printable(
            f"FinishedRun({info.model} · {info.dataset} · {method}: {metric.name} {value}, "
            f"{info.samples} samples, {self.folder})",
            LONGEST,
        )

    @property
    def info(self) -> RunInfo:
        """What the run was."""
        return self.results.run

    @cached_property
    def conditions(self) -> Mapping[str, Any]:
        """What a fair comparison holds fixed, by its name."""
        return conditions(self.info)

    @property
    def value(self) -> float:
        """The primary metric; NaN where undefined, e.g. the mean of no samples."""
        value = self.info.primary_metric.value
        return float("nan") if value is None else value

    def predictions(self) -> Iterator[Prediction]:
        """Its predictions in the order of the file.

        Raises:
            UserError: The file is missing or damaged; the sentence does not name its folder.
        """
        from ivcp.results.prediction import read_predictions

        path = self.folder / PREDICTIONS
        if not path.exists():
            raise UserError(f"{PREDICTIONS} is missing")
        for number, prediction in enumerate(read_predictions(path), 1):
            if isinstance(prediction, bytes):
                raise UserError(f"{PREDICTIONS} is damaged at line {number}")
            yield prediction


def read_results(path: Path) -> Results:
    """The contents of a `metrics.json`.

    Raises:
        UserError: The file cannot be read, or is not the result of a run of this version.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path} is missing or is no file.")
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is not the result of a run: it is larger than 64 MB.")
        return Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
        raise UserError(f"{path} is not the result of a run ({reason}).") from error


def find_runs(paths: Iterable[str | Path]) -> tuple[list[FinishedRun], list[str]]:
    """All finished runs in folders and in the folders below them.

    Args:
        paths: Run folders, parents of run folders, or `metrics.json` files.

    Returns:
        The runs in the order of their paths, and one sentence for each path that was left out.
    """
    runs: dict[str, FinishedRun] = {}
    problems: list[str] = []
    for path in map(Path, paths):
        files, closed = ([path], []) if os.path.isfile(path) else _result_files(path)
        problems += closed
        if not files and not closed:
            what = "holds no finished run" if os.path.isdir(path) else "does not exist"
            problems.append(f"{path} {what}.")
        for file in files:
            real = os.path.realpath(file)  # which takes loops of links for what they are
            if real not in runs:
                try:
                    runs[real] = FinishedRun(file.parent, read_results(file))
                except UserError as error:
                    problems.append(str(error))
    return list(runs.values()), [printable(problem, LONGEST) for problem in problems]


def _result_files(folder: Path) -> tuple[list[Path], list[str]]:
    """What is called `metrics.json` in a folder and below it, and the folders that are closed."""
    closed: list[str] = []

    def refused(error: OSError) -> None:
        if os.path.isdir(error.filename):
            closed.append(f"{error.filename} cannot be read ({error.strerror}).")

    files = [
        Path(parent, METRICS)
        for parent, folders, names in os.walk(folder, onerror=refused)
        if (METRICS in names or METRICS in folders) and Path(parent).name != BEFORE
    ]
    return sorted(files), closed


def find_baseline(run: RunInfo, runs: Iterable[FinishedRun]) -> FinishedRun | None:
    """The latest unpruned run that is comparable with a run; None if there is none."""
    same = [
        other
        for other in runs
        if other.info.unpruned
        and other.info.primary_metric.name == run.primary_metric.name
        and not differences(other.info, run)
    ]
    return max(same, key=lambda other: other.info.date, default=None)


def baseline_for(run: FinishedRun, wanted: str | None) -> FinishedRun | None:
    """The unpruned run that is shown beside a run.

    Args:
        run: The run.
        wanted: None for none; "auto" for the latest comparable one; or a folder.

    Raises:
        UserError: The folder holds no finished run.
    """
    if wanted is None or (wanted == "auto" and run.info.unpruned):
        return None
    if wanted != "auto":
        return read_baseline(wanted)
    runs, _ = find_runs([root for root in ROOTS if root.is_dir()])  # damaged ones are no baseline
    return find_baseline(run.info, runs)


def read_baseline(folder: str) -> FinishedRun:
    """The run of a folder.

    Raises:
        UserError: It holds no finished run.
    """
    try:
        return FinishedRun(Path(folder), read_results(Path(folder) / METRICS))
    except UserError as error:
        raise UserError(
            f"baseline must be null, auto, or the folder of a finished run: {error}"
        ) from error


def were_paired(run: FinishedRun, other: FinishedRun) -> bool:
    """Whether times of two runs compare: comparable runs of one sweep, trainer and code."""
    fields = ("versions", "git", "processes")
    return (
        not differing(run.conditions, other.conditions)
        and run.folder.resolve().parent == other.folder.resolve().parent
        and all(getattr(run.info, name) == getattr(other.info, name) for name in fields)
        and run.info.config.get("trainer") == other.info.config.get("trainer")
    )


def row(run: FinishedRun) -> dict[str, Any]:
    """What a table says of a run; numbers are raw, times in milliseconds."""
    info, results = run.info, run.results
    names = (
        "model", "dataset", "pruner", "variant", "ratio", "layers", "first_pass", "unpruned",
        "samples",
    )  # fmt: skip
    primary = info.primary_metric
    blocks = {"tokens": results.tokens, "efficiency": results.efficiency}
    return {
        **{name: getattr(info, name) for name in names},
        "failed_samples": info.failed_samples,
        "primary_metric": primary.name,
        "value": primary.value,
        "unit": primary.unit,
        **{f"metrics.{name}": value for name, value in results.metrics.items()},
        **flatten({name: block.model_dump() for name, block in blocks.items()}),
        "date": info.date,
        "folder": str(run.folder),
    }


def load_runs(folders: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """Finished runs as a table, one row each.

    Columns are names and settings (`model`, `pruner`, `ratio`, `layers`, ...), `value` of the
    `primary_metric`, and all numbers of `metrics.json` by their dotted names
    (`metrics.acc@0.5`, `tokens.keep_ratio`, `efficiency.language_prefill_ms.median`).

    Args:
        folders: Run folders, or parents of run folders.

    A `metrics.json` that is not the result of a run is left out with a warning.

    Raises:
        UserError: There is no finished run.
    """
    import pandas as pd

    paths = [folders] if isinstance(folders, str | Path) else list(folders)
    runs, problems = find_runs(paths)
    if not runs:
        raise UserError(" ".join(problems))
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return pd.DataFrame([row(run) for run in runs])


def load_predictions(folder: str | Path) -> pd.DataFrame:
    """The predictions of a run as a table, one row a sample, columns as in `Prediction`.

    Raises:
        UserError: The folder holds no finished run, or its predictions cannot be read.
    """
    import pandas as pd

    run = FinishedRun(Path(folder), read_results(Path(folder) / METRICS))
    samples: dict[int, dict[str, Any]] = {}
    try:
        for prediction in run.predictions():
            if prediction.index in samples:
                raise UserError(f"{PREDICTIONS} holds the sample {prediction.id} twice")
            samples[prediction.index] = dict(prediction)
    except UserError as error:
        raise UserError(f"The predictions of {folder} cannot be used: {error}.") from error
    return pd.DataFrame([samples[index] for index in sorted(samples)])
