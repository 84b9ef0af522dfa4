"""Runs compared with their unpruned baselines, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ivcp.core.errors import UserError
from ivcp.core.metric import (
    AnswerMetric,
    ScoredAnswer,
    Statistics,
    divided,
    find_metric,
    to_frame,
)
from ivcp.report.bootstrap import RESAMPLES, interval, mcnemar, resample
from ivcp.report.comparison import Entry, Paired, Unpaired
from ivcp.results.load import PREDICTIONS

SEED = 0
UNPRUNED_RUN = "unpruned run"
FOREIGN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What metrics raise on answers that are not theirs."""

Answers = dict[str, ScoredAnswer]
"""Scored answers by the id of the sample, in dataset order."""


@dataclass(frozen=True)
class Counts:
    """The answers to one dataset, as its metric counts them.

    Attributes:
        metric: The metric.
        statistics: (units, sums) sufficient statistics.
        right: (questions,) whether each thing that can be right or wrong is right.
    """

    metric: AnswerMetric
    statistics: Statistics
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Draws:
    """Primary metrics of a run and its baseline in bootstrap resamples.

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
        """The statistics of the pair."""
        run, base = self.primary_values[:, 0], self.primary_values[:, 1]
        return Paired(
            difference=interval(run - base),
            relative=interval(divided(run, base)),
            fixed=self.fixed,
            regressed=self.regressed,
            p=mcnemar(self.fixed, self.regressed),
        )


def pair_entries(
    entries: Sequence[Entry], resamples: int = RESAMPLES
) -> tuple[dict[Entry, Paired], list[Unpaired]]:
    """Statistics of each run that has a baseline, and of its tasks.

    Predictions are read one file at a time, those of a baseline once. The same files give the same
    numbers.

    Args:
        entries: Runs with their baselines.
        resamples: Number of bootstrap resamples.
    """
    by_base: dict[Entry, list[Entry]] = {}
    for entry in entries:
        if entry.base:
            by_base.setdefault(entry.base, []).append(entry)
    paired: dict[Entry, Paired] = {}
    unpaired: list[Unpaired] = []
    for base, others in by_base.items():
        try:
            base_answers = read_answers(base)
        except UserError as error:
            unpaired += [(entry, f"{UNPRUNED_RUN}: {error}") for entry in others]
            continue
        counted: dict[Entry, Counts] = {}
        for entry in others:
            draws, missing = _draw_all(entry, base_answers, resamples, counted)
            paired |= {task: draw.summary() for task, draw in draws.items()}
            unpaired += missing
    return paired, unpaired


def read_answers(entry: Entry) -> dict[str, Answers]:
    """The scored answers to each dataset of a run, by its name.

    Raises:
        UserError: The file is missing, damaged, or holds a sample twice.
    """
    rows: list[tuple[int, str, str, ScoredAnswer]] = []
    for prediction in entry.run.predictions():
        task = prediction.labels.get("task", "") if entry.tasks else entry.dataset
        rows.append((prediction.index, task, prediction.id, prediction.scored()))
    answers: dict[str, Answers] = {}
    for _, task, sample, answer in sorted(rows, key=lambda row: row[0]):
        if answers.setdefault(task, {}).setdefault(sample, answer) is not answer:
            raise UserError(f"{PREDICTIONS} holds the sample {sample} twice")
    return answers


def count_answers(entry: Entry, answers: Answers) -> Counts:
    """The answers to one dataset, as its metric counts them.

    Raises:
        UserError: The metric is unknown, or does not give the primary metric of `metrics.json`.
    """
    path = entry.metric.metric
    if not path:
        raise UserError("metrics.json names no metric")
    try:
        metric = find_metric(path)
    except LookupError as error:
        raise UserError(str(error).rstrip(".")) from error
    try:
        frame = to_frame(answers.values())
        statistics = metric.sufficient_statistics(frame).to_numpy(dtype=np.float64)
        right = metric.right(frame).to_numpy(dtype=np.bool_)
        value = float(metric.primary_value(statistics.sum(0)))
    except FOREIGN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot count {PREDICTIONS} again ({reason})") from error
    if not _same(value, entry.metric.value):
        raise UserError(f"{PREDICTIONS} gives another {entry.metric.name} than metrics.json holds")
    return Counts(metric, statistics, right)


def _draw_all(
    entry: Entry,
    base_answers: Mapping[str, Answers],
    resamples: int,
    counted: dict[Entry, Counts],
) -> tuple[dict[Entry, Draws], list[Unpaired]]:
    """Resamples of one run and of its tasks; `counted` holds the baseline's counts."""
    try:
        answers = read_answers(entry)
    except UserError as error:
        return {}, [(entry, str(error))]
    rng = np.random.default_rng(SEED)  # one for all tasks, since their draws are independent
    draws: dict[Entry, Draws] = {}
    unpaired: list[Unpaired] = []
    for task in entry.tasks or (entry,):
        run, base = answers.get(task.dataset, {}), base_answers.get(task.dataset, {})
        try:
            draws[task] = _draw(task, run, base, rng, resamples, counted)
        except UserError as error:
            unpaired.append((task, str(error)))
    if entry.tasks:
        try:
            draws[entry] = _average(entry, draws)
        except UserError as error:
            unpaired.append((entry, str(error)))
    return draws, unpaired


def _draw(
    task: Entry,
    answers: Answers,
    base_answers: Answers,
    rng: np.random.Generator,
    resamples: int,
    counted: dict[Entry, Counts],
) -> Draws:
    """One dataset under both methods.

    Raises:
        UserError: They cannot be compared.
    """
    if task.base is None:
        raise UserError("the unpruned run has no such task")
    try:
        if task.base not in counted:
            counted[task.base] = count_answers(task.base, base_answers)
        base = counted[task.base]
    except UserError as error:
        raise UserError(f"{UNPRUNED_RUN}: {error}") from error
    if answers.keys() != base_answers.keys():
        raise UserError("it holds other samples than the unpruned run")
    run = count_answers(task, {sample: answers[sample] for sample in base_answers})
    if (
        type(run.metric) is not type(base.metric)
        or run.statistics.shape != base.statistics.shape
        or run.right.shape != base.right.shape
    ):
        raise UserError("its samples were counted in another way than the unpruned run's")
    return Draws(
        resample(run.statistics, base.statistics, run.metric.primary_value, rng, resamples),
        fixed=int((run.right & ~base.right).sum()),
        regressed=int((base.right & ~run.right).sum()),
        highest=run.metric.highest,
    )


def _average(group: Entry, draws: Mapping[Entry, Draws]) -> Draws:
    """A group under both methods: the mean of its tasks, as fractions where metrics differ.

    Raises:
        UserError: That mean is not what the group reports, or a task is missing.
    """
    tasks, base = group.tasks, group.base
    if base is None or [task.dataset for task in base.tasks] != [task.dataset for task in tasks]:
        raise UserError("the unpruned run has other tasks")
    if any(task not in draws for task in tasks):
        raise UserError("not all of its tasks have them")
    alike = len({task.metric.metric for task in tasks}) == 1
    scales = [1.0 if alike else draws[task].highest for task in tasks]
    for side in (group, base):
        values = [task.metric.value or 0.0 for task in side.tasks]
        if not _same(float(np.mean(np.divide(values, scales))), side.metric.value):
            raise UserError(f"its {side.metric.name} is not the mean of its tasks")
    fractions = [
        draws[task].primary_values / scale for task, scale in zip(tasks, scales, strict=True)
    ]
    return Draws(
        np.mean(fractions, axis=0),
        fixed=sum(draws[task].fixed for task in tasks),
        regressed=sum(draws[task].regressed for task in tasks),
    )


def _same(value: float, recorded: float | None) -> bool:
    """Whether a number is the recorded one, but for rounding."""
    return recorded is not None and bool(np.isclose(value, recorded, rtol=1e-5, atol=1e-6))
