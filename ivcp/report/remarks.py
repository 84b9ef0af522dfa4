"""What a reader of the tables must know: failed samples, notes of runs, missing statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean

from ivcp.report.columns import change
from ivcp.report.comparison import Entry, Unpaired

PAIRED = (
    "difference: run minus unpruned, with the 95 % interval of a paired bootstrap; p: McNemar's "
    "exact test on the answers that pruning fixed and regressed."
)
MOST, MOST_LOSERS = 50, 10
"""Notes of runs below a table, and methods named in one of them."""
RANDOM = "random"


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
    return [*worse_than_random(entries), *lines, *missing_statistics(entries, unpaired)]


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


def worse_than_random(entries: Sequence[Entry]) -> list[str]:
    """For each dataset and model the methods whose score is below that of random tokens.

    They are compared at the same budget; at the same layer where there is such a random run, and
    with the mean of several seeds.
    """
    blocks: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        if entry.target and entry.metric.value is not None:
            blocks.setdefault((entry.name, entry.info.model, entry.metric.name), []).append(entry)
    lines = []
    for (dataset, model, metric), block in blocks.items():
        controls = [entry for entry in block if entry.info.pruner == RANDOM]
        losers = [
            (entry.metric.value - fmean(values), entry)
            for entry in block
            if entry.metric.value is not None
            and entry.info.pruner != RANDOM
            and (values := _scores_of_random(entry, controls))
        ]
        unit = block[0].metric.unit
        texts = [
            f"{' '.join(filter(None, (entry.method, entry.variant.text)))} at {entry.target} "
            f"({change(difference, unit)})"
            for difference, entry in sorted(losers, key=lambda loser: loser[0])
            if change(difference, unit).startswith("-")
        ]
        if texts:
            more = f" and {len(texts) - MOST_LOSERS} more" if len(texts) > MOST_LOSERS else ""
            named = ", ".join(texts[:MOST_LOSERS])
            lines.append(
                f"{dataset}, {model}: below random tokens of the same budget in {metric}: "
                f"{named}{more}."
            )
    return lines


def _scores_of_random(entry: Entry, controls: Sequence[Entry]) -> list[float]:
    alike = [control for control in controls if control.target == entry.target]
    same_layer = [control for control in alike if control.layers == entry.layers]
    return [c.metric.value for c in same_layer or alike if c.metric.value is not None]


def _notes(entry: Entry) -> Iterator[str]:
    info = entry.info
    yield from dict.fromkeys([*info.notes, *filter(None, [info.judge.reason])])
    if info.failed_samples:
        yield f"{info.failed_samples} of {info.samples} samples failed and count as wrong."


def _some(count: int, total: int) -> str:
    return "" if count == total else f" ({count} of {total} runs)"
