"""What a reader of the tables must know: failed samples, notes of runs, missing statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ivcp.report.comparison import Entry, Unpaired

PAIRED = (
    "difference: run minus unpruned, with the 95 % interval of a paired bootstrap; p: McNemar's "
    "exact test on the answers that pruning fixed and regressed."
)
MOST = 50
"""Notes of runs below a table."""


def remarks(entries: Sequence[Entry], unpaired: Sequence[Unpaired] = ()) -> list[str]:
    """One line for each thing to know, which says how many runs it is about.

    Args:
        entries: The runs of the tables.
        unpaired: Those of them, or of their tasks, that lack statistics.
    """
    totals = Counter(entry.dataset for entry in entries)
    notes = Counter((entry.dataset, note) for entry in entries for note in _notes(entry))
    lines = [
        f"{dataset}{_some(count, totals[dataset])}: {note}"
        for (dataset, note), count in [*notes.items()][:MOST]
    ]
    if len(notes) > MOST:
        lines.append(f"{len(notes) - MOST} more notes are in the runs' metrics.json.")
    return [*lines, *missing_statistics(entries, unpaired)]


def missing_statistics(entries: Sequence[Entry], unpaired: Sequence[Unpaired]) -> list[str]:
    """Which runs have no statistics, and why.

    Args:
        entries: As in `remarks`.
        unpaired: Likewise.
    """
    totals = Counter(entry.dataset for entry in entries)
    alone = Counter(entry.dataset for entry in entries if not (entry.info.unpruned or entry.base))
    lines = [
        f"{dataset}{_some(count, totals[dataset])}: no unpruned run of the same model, data and "
        "settings is there to compare them with; report one of pruner=none with them."
        for dataset, count in alone.items()
    ]
    by_reason: dict[tuple[str, str], list[Entry]] = {}
    for entry, reason in unpaired:
        by_reason.setdefault((entry.name, reason), []).append(entry)
    for (dataset, reason), alike in by_reason.items():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        lines.append(f"{dataset}: no interval, no test: {reason} ({alike[0].run.folder}{more}).")
    return lines


def _notes(entry: Entry) -> Iterator[str]:
    info = entry.info
    yield from dict.fromkeys([*info.notes, *filter(None, [info.judge.reason])])
    if info.failed_samples:
        yield f"{info.failed_samples} of {info.samples} samples failed and count as wrong."


def _some(count: int, total: int) -> str:
    return "" if count == total else f" ({count} of {total} runs)"
