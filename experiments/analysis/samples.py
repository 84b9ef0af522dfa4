"""Finished runs of the studies, with what they gave on each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ivcp.core.errors import UserError
from ivcp.report.comparison import Entry
from ivcp.report.paired import Counts, count_answers
from ivcp.report.variants import Variant
from ivcp.results.load import FinishedRun, find_runs
from ivcp.results.schema import Results, RunInfo

LAYERS = ("methods-boxes", "methods-questions", "random-boxes", "random-questions")
ALONE = ("ivc", "base", "offset", "random", "spread")
SPREAD = [
    base + added
    for base in ("foreground", "fastv", "vispruner")
    for added in ("", "-base", "-offset", "-random", "-farthest")
]
SWEEPS: dict[str, Sequence[str]] = {
    "unpruned": ("test", "val"),
    "positions": ("all",),
    "spread": (*ALONE, *(f"late-{name}" for name in ALONE), *SPREAD),
    "horizon": (*LAYERS, "diagnose"),
    "equal_cost": ("boxes", "flops", "questions", "early"),
    "two_stage": ("seeds", "val", "test"),
}
"""Folders below a model's, and those below them, in which runs are looked for."""
MODELS = ("tiny", "tiny_llava")
BOXES = "acc@0.5"
"""Primary metric of grounding."""

Numbers: TypeAlias = npt.NDArray[np.float64]
Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run and its samples, in dataset order.

    Attributes:
        results: What its `metrics.json` holds.
        sweep: Folder of the sweep.
        ids: Of the samples.
        counts: The answers as the metric counts them.
        kept_in_box: (samples,) part of the true box's tokens that remains; NaN without a box.
        coverage: (samples,) largest distance from a token to a remaining one, in image diagonals.
        depth: Decoder layers.
    """

    results: Results
    sweep: str
    ids: tuple[str, ...]
    counts: Counts
    kept_in_box: Numbers
    coverage: Numbers
    depth: int

    @property
    def info(self) -> RunInfo:
        """What it was."""
        return self.results.run

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the pruner."""
        return self.info.config["pruner"]

    @property
    def value(self) -> float:
        """The primary metric."""
        return self.info.primary_metric.value or 0.0


Arm: TypeAlias = tuple[Run, ...]
"""A method with its settings: one run, or draws that differ in their seed."""


def arms(runs: Iterable[Run], key: Callable[[Run], Key]) -> dict[Key, Arm]:
    """Runs by a key, in its order; those that share it differ in `seed` alone."""
    groups: dict[Key, dict[int, Run]] = {}
    for run in runs:
        groups.setdefault(key(run), {})[run.settings.get("seed", 0)] = run
    return {name: tuple(groups[name].values()) for name in sorted(groups)}


def ratio(run: Run) -> float:
    """The ratio that was asked for, negative, so that the largest is first."""
    return -(run.info.ratio or 0.0)


def by_layer(run: Run) -> Key:
    """A key of runs that differ in dataset, ratio, layer and method."""
    return run.info.dataset, ratio(run), run.info.layers, run.info.pruner


def read_run(finished: FinishedRun) -> Run:
    """A run with its samples.

    Raises:
        UserError: Its predictions are missing, damaged, or do not fit its `metrics.json`.
    """
    predictions = sorted(finished.predictions(), key=lambda each: each.index)
    info = finished.info
    entry = Entry(
        run=finished,
        dataset=info.dataset,
        metric=info.primary_metric,
        unparsed_rate=None,
        variant=Variant(),
        base=None,
    )
    return Run(
        results=finished.results,
        sweep=finished.folder.parent.name,
        ids=tuple(each.id for each in predictions),
        counts=count_answers(entry, {each.id: each.scored() for each in predictions}),
        kept_in_box=_last(each.kept_in_box for each in predictions),
        coverage=_last(each.coverage for each in predictions),
        depth=max(len(each.layer_tokens) for each in predictions),  # a failed sample has none
    )


def _last(stages: Iterable[Sequence[float]]) -> Numbers:
    """What each sample has behind the last stage; NaN without one."""
    return np.array([each[-1] if each else np.nan for each in stages])


class Studies:
    """The runs of all studies, each read once.

    Attributes:
        root: The folder of the models.
        models: The models that have runs.
        problems: One sentence for each thing that is left out.
    """

    def __init__(self, root: Path, models: Sequence[str] = MODELS) -> None:
        self.root = root
        self.models = [model for model in models if (root / model).is_dir()]
        absent = [model for model in models if model not in self.models]
        self.problems = [f"{root / model} does not exist; it is left out." for model in absent]
        self._read: dict[tuple[str, str], list[Run]] = {}

    def runs(self, model: str, study: str, *sweeps: str) -> list[Run]:
        """The runs of a study, or of some of its sweeps, on the samples of the unpruned runs."""
        if (model, study) not in self._read:
            self._read[model, study] = self._read_all(model, study)
        return [run for run in self._read[model, study] if not sweeps or run.sweep in sweeps]

    def unpruned(self, model: str, split: str = "test") -> dict[str, Arm]:
        """The unpruned model by dataset."""
        return {run.info.dataset: (run,) for run in self.runs(model, "unpruned", split)}

    def _read_all(self, model: str, study: str) -> list[Run]:
        folder = self.root / model / study
        paths = [folder / sweep for sweep in SWEEPS[study]] if folder.is_dir() else [folder]
        finished, problems = find_runs(paths)
        self.problems += [f"{problem[:-1]}; it is left out." for problem in problems]
        runs = []
        for each in finished:
            if each.info.failed_samples == each.info.samples:
                self.problems.append(f"{each.folder} is left out: all its samples failed.")
                continue
            try:
                runs.append(read_run(each))
            except UserError as error:
                self.problems.append(f"{each.folder} is left out: {error}.")
        if study == "unpruned":
            return runs
        samples = {(run.info.dataset, run.ids) for run in self.runs(model, "unpruned")}
        same = [run for run in runs if not samples or (run.info.dataset, run.ids) in samples]
        if others := len(runs) - len(same):
            reason = "no unpruned run has their samples"
            self.problems.append(f"{folder}: {others} runs are left out, since {reason}.")
        return same
