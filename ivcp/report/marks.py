"""What stands out among runs: differences that hold, the best of a budget, who loses to random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from ivcp.report.comparison import Entry

RANDOM = "random"
"""The control that a method must beat: random tokens."""
BEST, BELOW, BETTER, WORSE = "★ best", "↓ below random", "▲ better", "▼ worse"
"""Marks of a run; each has a sign and words, so that none relies on its colour."""
MEANINGS = {
    BEST: "The highest score of its budget among the pruned runs of a model and dataset.",
    BELOW: "The score is lower than that of the control that keeps random tokens, at the same "
    "budget (the mean of its seeds). There is no test behind it.",
    BETTER: "The difference to the unpruned run holds: its 95 % interval leaves out 0, and p is "
    "below 0.05. That happens once in twenty times where nothing differs.",
    WORSE: "The same for a loss.",
}

Block: TypeAlias = tuple[str, str, str]
"""Dataset, model and primary metric: runs whose scores compare."""


@dataclass(frozen=True)
class BudgetSummary:
    """The runs of one budget in a line.

    Attributes:
        block: Which runs.
        budget: Which of them.
        unpruned: The latest run without pruning; None if there is none.
        best: The run of the highest score.
        random: Mean score of the random control; None if there is none.
        below: Names of the methods that score less than it.
    """

    block: Block
    budget: str
    unpruned: Entry | None
    best: Entry
    random: float | None
    below: tuple[str, ...]


def block_of(entry: Entry) -> Block:
    """The runs that an entry compares with."""
    return entry.dataset, entry.info.model, entry.metric.name


def budget_name(entry: Entry) -> str:
    """What a run was to keep, in words."""
    return entry.target or ("unpruned" if entry.info.unpruned else "own settings")


def variant_name(entry: Entry) -> str:
    """Method and what sets it apart from other runs of that method."""
    return f"{entry.method} {entry.variant.settings}".strip()


def summarize_budgets(entries: Sequence[Entry]) -> list[BudgetSummary]:
    """One line for each budget of each model and dataset, in the order of the runs."""
    budgets: dict[tuple[Block, str], list[Entry]] = {}
    unpruned: dict[Block, Entry] = {}
    for entry in entries:
        block = block_of(entry)
        if not entry.info.unpruned:
            budgets.setdefault((block, budget_name(entry)), []).append(entry)
        elif block not in unpruned or unpruned[block].info.date < entry.info.date:
            unpruned[block] = entry
    summaries = []
    for (block, budget), alike in budgets.items():
        scored = [entry for entry in alike if entry.metric.value is not None]
        if scored:
            random = random_score(scored)
            below = dict.fromkeys(variant_name(e) for e in scored if _is_below(e, random))
            best = max(scored, key=_value)
            summaries.append(
                BudgetSummary(block, budget, unpruned.get(block), best, random, tuple(below))
            )
    return summaries


def random_score(alike: Sequence[Entry]) -> float | None:
    """Mean score of the random control among runs of one budget; None if there is none."""
    values = [_value(entry) for entry in alike if entry.info.pruner == RANDOM]
    return fmean(values) if values else None


def find_marks(entries: Sequence[Entry]) -> Mapping[Entry, tuple[str, ...]]:
    """The marks of each run that has some."""
    marks: dict[Entry, list[str]] = {}
    alike: dict[tuple[Block, str], list[Entry]] = {}
    for entry in entries:
        if not entry.info.unpruned and entry.metric.value is not None:
            alike.setdefault((block_of(entry), budget_name(entry)), []).append(entry)
    for runs in alike.values():
        best, random = max(map(_value, runs)), random_score(runs)
        for entry in runs:
            if len(runs) > 1 and _value(entry) == best:
                marks.setdefault(entry, []).append(BEST)
            if entry.paired.significant:
                marks.setdefault(entry, []).append(WORSE if (entry.difference or 0) < 0 else BETTER)
            if _is_below(entry, random):
                marks.setdefault(entry, []).append(BELOW)
    return {entry: tuple(names) for entry, names in marks.items()}


def _is_below(entry: Entry, random: float | None) -> bool:
    return random is not None and entry.info.pruner != RANDOM and _value(entry) < random


def _value(entry: Entry) -> float:
    return entry.metric.value or 0.0
