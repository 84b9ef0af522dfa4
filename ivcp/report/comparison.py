"""Finished runs, each beside the unpruned run that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ivcp.core.budget import in_words
from ivcp.report.method_names import method_name
from ivcp.report.variants import Variant, find_variants, pruner_settings
from ivcp.results.comparability import differences, differing
from ivcp.results.load import FinishedRun
from ivcp.results.schema import Efficiency, PrimaryMetric, RunInfo, Tokens

ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """Where a number lies with a confidence of 95 %; None if that is unknown."""

    low: float | None = None
    high: float | None = None


UNKNOWN = Interval()


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How a run and its baseline differ on the samples that both answered; None if unknown.

    For a group, the samples of each task are resampled separately, and the answers of all tasks
    are counted together.

    Attributes:
        difference: Primary metric minus the baseline's, in its unit.
        relative: Primary metric over the baseline's.
        fixed: Answers that only the run has right.
        regressed: Answers that only the baseline has right.
        p: Of McNemar's exact test on these two.
    """

    difference: Interval = UNKNOWN
    relative: Interval = UNKNOWN
    fixed: int | None = None
    regressed: int | None = None
    p: float | None = None

    @property
    def significant(self) -> bool | None:
        """Whether the interval of the difference excludes 0 and McNemar's p is below 0.05.

        Both are needed: resampling hardly varies a handful of answers, so that the interval alone
        would be too narrow. None without an interval.
        """
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or self.p is None:
            return None
        return not low <= 0 <= high and self.p < ALPHA


NOT_PAIRED = Paired()


ALL_SETS = "all datasets"


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """One line of the tables: a finished run, or one task of a group.

    Attributes:
        run: The finished run.
        dataset: Name of the dataset or of the task.
        group: Of a task, the name of its group; else "".
        metric: The primary metric with its value: a fraction or points.
        unparsed_rate: Fraction of the answers that could not be read.
        variant: What sets the run apart from others of the same pruner.
        base: The unpruned run, or its task; None if there is none, and for that run itself.
        tasks: The tasks of a group that have results, in the group's order.
        samples: Number of scored samples; of a run alone, as the next three.
        failed_samples: Those that could not be run.
        tokens: Token counts.
        efficiency: Measurements.
        paired: Statistics over the samples of run and baseline.
    """

    run: FinishedRun
    dataset: str
    group: str = ""
    metric: PrimaryMetric
    unparsed_rate: float | None
    variant: Variant
    base: Entry | None
    tasks: tuple[Entry, ...] = ()
    samples: int | None = None
    failed_samples: int | None = None
    tokens: Tokens = field(default_factory=Tokens)
    efficiency: Efficiency = field(default_factory=Efficiency)
    paired: Paired = NOT_PAIRED

    @property
    def info(self) -> RunInfo:
        """What the run was."""
        return self.run.info

    @property
    def name(self) -> str:
        """Name of the dataset, of a task behind that of its group."""
        return f"{self.group}/{self.dataset}" if self.group else self.dataset

    @property
    def method(self) -> str:
        """The pruner's name as papers write it."""
        return method_name(self.info)

    @property
    def target(self) -> str:
        """What was asked for, which runs of one budget have in common; "" if that is unknown."""
        budget = self.info.budget
        if self.info.unpruned or (budget is None and self.info.ratio is None):
            return ""
        return in_words(self.info.ratio, None, "final") if budget is None else budget.asked

    @property
    def ratio(self) -> float | None:
        """Ratio that was asked for, else measured; 1 for an unpruned run."""
        if self.dataset == ALL_SETS:
            ratios = {task.ratio for task in self.tasks}
            return ratios.pop() if len(ratios) == 1 else None
        return 1.0 if self.info.unpruned else self.info.ratio

    @property
    def budget(self) -> str | None:
        """What was asked for and what came out; None where the keep ratio alone says it."""
        budget = self.info.budget
        plain = budget is not None and (budget.count, budget.over) == ("final", "video")
        if budget is None or (plain and budget.ratio is not None):
            return None
        found = budget.obtained
        if found is None or self.dataset == ALL_SETS:
            return budget.asked
        return (
            f"{budget.asked}: {100 * found:.1f} %"
            if budget.unit
            else f"{budget.asked}: {found:.1f}"
        )

    @property
    def layers(self) -> str:
        """`RunInfo.layer_names`; "" for an unpruned run."""
        return "" if self.info.unpruned else self.info.layer_names

    @property
    def relative(self) -> float | None:
        """Primary metric over that of the unpruned run; 1 for that run itself."""
        value = self.metric.value
        if self.base is None:
            return 1.0 if self.info.unpruned and value else None
        base = self.base.metric.value
        return value / base if base and value is not None else None

    @property
    def difference(self) -> float | None:
        """Primary metric minus that of the unpruned run; None for that run itself."""
        if self.base is None or self.base.metric.value is None or self.metric.value is None:
            return None
        return self.metric.value - self.base.metric.value

    def task(self, name: str) -> Entry | None:
        """The entry of a task of the group."""
        return next((task for task in self.tasks if task.dataset == name), None)


Unpaired: TypeAlias = tuple[Entry, str]
"""A run, or a task of a group, without statistics though it has a baseline, and why."""


def make_entries(runs: Sequence[FinishedRun]) -> list[Entry]:
    """Runs by dataset and model, then from large to small ratio, then from good to bad.

    The baseline of a run is the latest unpruned run that is comparable with it.
    """
    variants = dict(zip(runs, find_variants([run.info for run in runs]), strict=True))
    unpruned: dict[tuple[str, str, str], list[FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: run.info.date, reverse=True):
        if run.info.unpruned:
            unpruned.setdefault(_names(run.info), []).append(run)
    entries: dict[FinishedRun, Entry] = {}

    def entry(run: FinishedRun) -> Entry:
        if run not in entries:
            comparable = (
                other
                for other in unpruned.get(_names(run.info), ())
                if not differing(run.conditions, other.conditions)
            )
            base = next(comparable, run)
            entries[run] = _entry(run, variants[run], None if base is run else entry(base))
        return entries[run]

    return sorted(map(entry, runs), key=_order)


def merge_repeats(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], int]:
    """Runs in which those of the same configuration and result appear once, as the latest.

    A sweep over ratios repeats the unpruned run at each of them, and two studies may have a run in
    common.

    Returns:
        The runs, and how many were left out.
    """
    latest: dict[object, list[FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: run.info.date, reverse=True):
        info = run.info
        key = (*_names(info), info.primary_metric.value, info.pruner, info.unpruned, info.ratio)
        alike = latest.setdefault(key[:-1] if info.unpruned else key, [])
        if not any(_repeats(info, other.info) for other in alike):
            alike.append(run)
    kept = {run for alike in latest.values() for run in alike}
    return [run for run in runs if run in kept], len(runs) - len(kept)


def over_sets(entries: Sequence[Entry]) -> list[Entry]:
    """One entry a method and model that has the runs on all datasets as tasks, as a group has.

    There is none for a model that has runs on one dataset alone. Groups are left out.
    """
    methods: dict[tuple[object, ...], dict[str, Entry]] = {}
    datasets: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.tasks and not entry.group:
            info = entry.info
            asked = entry.ratio if info.budget is None else info.budget.asked
            settings = frozenset(pruner_settings(info).items())
            key = (info.model, info.pruner, settings, entry.layers, asked)
            found = methods.setdefault(key, {})
            other = found.get(entry.dataset)
            if other is None or other.info.date < info.date:  # the latest of repeats
                found[entry.dataset] = entry
            names = datasets.setdefault(info.model, [])
            names += [] if entry.dataset in names else [entry.dataset]
    return [
        _over_sets(list(found.values()), len(datasets[str(model)]))
        for (model, *_), found in methods.items()
        if len(datasets[str(model)]) > 1
    ]


def _over_sets(found: Sequence[Entry], sets: int) -> Entry:
    """The runs of a method on several datasets as one entry; the mean of scores of one unit."""
    values = [entry.metric.value for entry in found if entry.metric.value is not None]
    alike = len(values) == sets and len({entry.metric.unit for entry in found}) == 1
    mean = sum(values) / sets if alike else None
    metric = PrimaryMetric(name="average", unit=found[0].metric.unit, value=mean)
    first = found[0]
    return Entry(
        run=first.run, dataset=ALL_SETS, metric=metric, unparsed_rate=None, variant=first.variant,
        base=None, tasks=tuple(found),
    )  # fmt: skip


def with_tasks(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of runs, those of groups followed by their tasks."""
    return sorted((line for entry in entries for line in (entry, *entry.tasks)), key=_order)


def with_statistics(entries: Sequence[Entry], paired: Mapping[Entry, Paired]) -> list[Entry]:
    """The entries, and their tasks, with the statistics that there are."""

    def paired_entry(entry: Entry) -> Entry:
        tasks = tuple(map(paired_entry, entry.tasks))
        return replace(entry, tasks=tasks, paired=paired.get(entry, NOT_PAIRED))

    return list(map(paired_entry, entries))


def _names(info: RunInfo) -> tuple[str, str, str]:
    return info.model, info.dataset, info.primary_metric.name


def _repeats(run: RunInfo, other: RunInfo) -> bool:
    """Whether two runs, alike in names, ratio and result, are one run made twice."""
    pruner = run.config.get("pruner")
    asked = {info.budget and info.budget.asked for info in (run, other)}
    same = run.unpruned or (pruner and pruner == other.config.get("pruner") and len(asked) == 1)
    return bool(same) and not differences(run, other)


def _entry(run: FinishedRun, variant: Variant, base: Entry | None) -> Entry:
    info, results = run.info, run.results
    tasks = [
        Entry(
            run=run,
            dataset=name,
            group=info.dataset,
            metric=PrimaryMetric(**dict(metric), value=results.metrics[f"{name}/{metric.name}"]),
            unparsed_rate=results.metrics.get(f"{name}/unparsed_rate"),
            variant=variant,
            base=base and base.task(name),
        )
        for name, metric in info.tasks.items()
        if f"{name}/{metric.name}" in results.metrics
    ]
    return Entry(
        run=run,
        dataset=info.dataset,
        metric=info.primary_metric,
        unparsed_rate=results.metrics.get("unparsed_rate"),
        variant=variant,
        base=base,
        tasks=tuple(tasks),
        samples=info.samples,
        failed_samples=info.failed_samples,
        tokens=results.tokens,
        efficiency=results.efficiency,
    )


def _order(entry: Entry) -> tuple[str | float, ...]:
    info, value = entry.info, entry.metric.value
    names = info.dataset, info.model, entry.dataset if entry.group else ""
    rank = 1.0 if value is None else -value
    return (
        *names, not info.unpruned, *_asked(entry), entry.target, rank, info.pruner, entry.layers
    )  # fmt: skip


def _asked(entry: Entry) -> tuple[bool, float]:
    """Order of budgets: fractions, then numbers of tokens, each from large to small."""
    budget = entry.info.budget
    if budget is None or (budget.tokens is None and budget.ratio is None):
        return False, -(entry.ratio or 0.0)
    return budget.tokens is not None, -(budget.tokens or budget.ratio or 0.0)
