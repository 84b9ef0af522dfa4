"""From folders to the runs of a report: read, chosen, and compared with their unpruned runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ivcp.core.errors import UserError, did_you_mean
from ivcp.core.printable import printable
from ivcp.report.comparison import Entry, make_entries, merge_repeats, with_statistics
from ivcp.report.remarks import PAIRED, remarks
from ivcp.report.variants import setting_text
from ivcp.results.comparability import flatten
from ivcp.results.load import find_runs
from ivcp.results.schema import RunInfo


@dataclass(frozen=True)
class Gathered:
    """The runs of a report.

    Attributes:
        entries: The runs, with statistics.
        lines: What a reader must know, one sentence each.
        problems: Paths that were left out, and why.
        summary: How many there are, and how many were left out; without a full stop.
    """

    entries: list[Entry]
    lines: list[str]
    problems: list[str]
    summary: str


def gather(paths: Sequence[Path], paired: bool = True, where: Sequence[str] = ()) -> Gathered:
    """Read finished runs and compare them; what is left out is printed.

    Args:
        paths: Run folders or parents of run folders.
        paired: Whether to read each run's predictions, for intervals and tests.
        where: Conditions of `choose`.

    Raises:
        UserError: No run could be read, or none meets the conditions.
    """
    runs, problems = find_runs(paths)
    for problem in problems:
        print(printable(problem), file=sys.stderr)
    if not runs:
        raise UserError(
            f"No finished run was found in {', '.join(map(str, paths))}; give folders that hold "
            "a metrics.json, such as outputs/ or multirun/."
        )
    runs, repeated = merge_repeats(runs)
    everything = make_entries(runs)
    chosen = choose(everything, where)
    entries, lines = _compare(chosen, paired)
    summary = ", ".join(
        [
            "1 run" if len(entries) == 1 else f"{len(entries)} runs",
            *([f"{len(everything) - len(chosen)} not asked for"] if where else []),
            *([f"{repeated} repeated left out"] if repeated else []),
            *([f"{len(problems)} skipped"] if problems else []),
        ]
    )
    return Gathered(entries, lines, problems, summary)


def choose(entries: Sequence[Entry], where: Sequence[str]) -> list[Entry]:
    """The runs that meet all conditions, and their unpruned runs.

    Args:
        entries: All runs.
        where: Conditions "name=value" on fields of a run's record and settings of its
            configuration; `*` in a value stands for any characters.

    Raises:
        UserError: A condition is none, no run has such a setting, or no run meets them.
    """
    conditions = [condition.partition("=") for condition in where]
    for name, equals, _ in conditions:
        if not name or not equals:
            raise UserError(f"--where takes name=value, such as dataset=shapes; got {name!r}.")
    if not conditions:
        return list(entries)
    settings = {entry: _settings(entry.info) for entry in entries}
    names = {name for values in settings.values() for name in values}
    for name, _, _ in conditions:
        if name not in names:
            raise UserError(f"No run has a setting {name}{did_you_mean(name, names)}")
    meeting = [
        entry
        for entry, values in settings.items()
        if all(fnmatchcase(values.get(name, ""), value) for name, _, value in conditions)
    ]
    if not meeting:
        raise UserError(f"No run meets {' and '.join(where)}.")
    kept = {*meeting, *(entry.base for entry in meeting if entry.base)}
    return [entry for entry in entries if entry in kept]


def _settings(info: RunInfo) -> dict[str, str]:
    """Fields of a run's record and settings of its configuration, by name."""
    values = flatten(info.config) | flatten(info.model_dump(mode="json", exclude={"config"}))
    return {name: setting_text(value) for name, value in values.items()}


def _compare(entries: list[Entry], paired: bool) -> tuple[list[Entry], list[str]]:
    """The entries with statistics, and the lines below their tables."""
    if not paired:
        return entries, remarks(entries)
    from ivcp.report.paired import pair_entries  # torch and scipy take seconds to import

    statistics, unpaired = pair_entries(entries)
    lines = remarks(entries, unpaired)
    return with_statistics(entries, statistics), [PAIRED, *lines] if statistics else lines
