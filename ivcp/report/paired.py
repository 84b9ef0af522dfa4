"""Runs held against their unpruned baselines, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ivcp.core.errors import UserError
from ivcp.core.metric import Statistics, divided
from ivcp.report.comparison import Paired, Unpaired
from ivcp.report.resampling import RESAMPLES, interval, mcnemar, resample
from ivcp.report.runs import Run, baseline_of
from ivcp.report.verdicts import Lines, Verdicts, judge_again, read_lines, same

SEED = 0
UNPRUNED_RUN = "unpruned run"

Reference: TypeAlias = Verdicts | str
"""The verdicts of a baseline on one set, or why there are none."""


@dataclass(frozen=True)
class _Draws:
    """A run beside its baseline.

    Attributes:
        primary_values: (resamples, 2)
        fixed: As in `Paired`.
        regressed: As in `Paired`.
        highest: The metric's.
    """

    primary_values: Statistics
    fixed: int
    regressed: int
    highest: float = 1.0

    def summary(self) -> Paired:
        run, base = self.primary_values[:, 0], self.primary_values[:, 1]
        return Paired(
            difference=interval(run - base),
            relative=interval(divided(run, base)),
            fixed=self.fixed,
            regressed=self.regressed,
            p=mcnemar(self.fixed, self.regressed),
        )


def pair_runs(
    runs: Sequence[Run], resamples: int = RESAMPLES
) -> tuple[dict[Run, Paired], list[Unpaired]]:
    """Statistics of each run that has a baseline, and of its tasks.

    Predictions are read one file at a time, those of a baseline once. The same files give the same
    numbers.

    Args:
        runs: Runs with their baselines among them.
        resamples: Number of bootstrap resamples.
    """
    unpruned = [run for run in runs if run.unpruned]
    by_baseline: dict[Run, list[Run]] = {}
    for run in runs:
        base = baseline_of(run, unpruned)
        if base is not None and base is not run:
            by_baseline.setdefault(base, []).append(run)
    paired: dict[Run, Paired] = {}
    unpaired: list[Unpaired] = []
    for base, others in by_baseline.items():
        try:
            references = _references(base)
        except UserError as error:
            unpaired += [Unpaired(run, f"{UNPRUNED_RUN}: {error}") for run in others]
            continue
        for run in others:
            found, missing = _pair(run, base, references, resamples)
            paired |= found
            unpaired += missing
    return paired, unpaired


def _references(base: Run) -> dict[str, Reference]:
    """What is known of each set of a baseline.

    Raises:
        UserError: Its predictions cannot be read.
    """
    sets = read_lines(base)
    found: dict[str, Reference] = {}
    for part in base.tasks or (base,):
        try:
            found[part.dataset] = judge_again(part, sets.get(part.dataset, {}))
        except UserError as error:
            found[part.dataset] = f"{UNPRUNED_RUN}: {error}"
    return found


def _pair(
    run: Run, base: Run, references: Mapping[str, Reference], resamples: int
) -> tuple[dict[Run, Paired], list[Unpaired]]:
    """Statistics of one run and of its tasks."""
    try:
        sets = read_lines(run)
    except UserError as error:
        return {}, [Unpaired(run, str(error))]
    rng = np.random.default_rng(SEED)  # one for all tasks, since their draws are independent
    draws: dict[Run, _Draws] = {}
    unpaired = []
    for part in run.tasks or (run,):
        reference = references.get(part.dataset, "the unpruned run has no such set")
        try:
            draws[part] = _draw(part, sets.get(part.dataset, {}), reference, rng, resamples)
        except UserError as error:
            unpaired.append(Unpaired(part, str(error)))
    if run.tasks:
        try:
            draws[run] = _average(run, base, draws)
        except UserError as error:
            unpaired.append(Unpaired(run, str(error)))
    return {part: one.summary() for part, one in draws.items()}, unpaired


def _draw(
    part: Run, lines: Lines, reference: Reference, rng: np.random.Generator, resamples: int
) -> _Draws:
    """One set under both methods.

    Raises:
        UserError: They cannot be compared.
    """
    if isinstance(reference, str):
        raise UserError(reference)
    if lines.keys() != set(reference.ids):
        raise UserError("it holds other samples than the unpruned run")
    own = judge_again(part, lines, reference.ids)
    alike = own.sufficient_statistics.shape == reference.sufficient_statistics.shape and len(
        own.right
    ) == len(reference.right)
    if type(own.metric) is not type(reference.metric) or not alike:
        raise UserError("its samples were counted in another way than the unpruned run's")
    primary_value = own.metric.primary_value
    return _Draws(
        resample(
            own.sufficient_statistics,
            reference.sufficient_statistics,
            primary_value,
            rng,
            resamples,
        ),
        fixed=int((own.right & ~reference.right).sum()),
        regressed=int((reference.right & ~own.right).sum()),
        highest=own.metric.highest,
    )


def _average(group: Run, base: Run, draws: Mapping[Run, _Draws]) -> _Draws:
    """A group under both methods: the mean of its tasks, as fractions where metrics differ.

    Raises:
        UserError: That mean is not what the group reports, or a task is missing.
    """
    names = [task.dataset for task in group.tasks]
    if [task.dataset for task in base.tasks] != names:
        raise UserError("the unpruned run has other sets")
    if any(task not in draws for task in group.tasks):
        raise UserError("not all of its sets have them")
    parts = [draws[task] for task in group.tasks]
    alike = len({task.metric for task in group.tasks}) == 1
    scales = [1.0 if alike else part.highest for part in parts]
    for run in (group, base):
        values = [task.value or 0.0 for task in run.tasks]
        if not same(float(np.mean(np.divide(values, scales))), run.value):
            raise UserError(f"its {run.primary_metric} is not the mean of its sets")
    shares = [part.primary_values / scale for part, scale in zip(parts, scales, strict=True)]
    return _Draws(
        np.mean(shares, axis=0),
        fixed=sum(part.fixed for part in parts),
        regressed=sum(part.regressed for part in parts),
    )
