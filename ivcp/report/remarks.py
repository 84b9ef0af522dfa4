"""What a reader of the tables must know: failed samples, notes of runs, missing statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ivcp.report.comparison import Unpaired
from ivcp.report.rows import dataset_name
from ivcp.report.runs import Run, baseline_of

PAIRED = (
    "difference: run minus unpruned, with the 95 % interval of a paired bootstrap; p: McNemar's "
    "exact test on the answers that pruning fixed and regressed."
)


def remarks(runs: Sequence[Run], unpaired: Sequence[Unpaired] = ()) -> list[str]:
    """One line for each thing to know, which says how many runs it is about.

    Args:
        runs: The runs of the tables.
        unpaired: Those of them, or of their tasks, that lack statistics.
    """
    totals = Counter(run.dataset for run in runs)
    told = Counter((run.dataset, sentence) for run in runs for sentence in _sentences(run))
    lines = [
        f"{dataset}{_share(count, totals[dataset])}: {sentence}"
        for (dataset, sentence), count in told.items()
    ]
    unpruned = [run for run in runs if run.unpruned]
    for dataset, total in totals.items():
        alone = sum(
            run.dataset == dataset and not run.unpruned and baseline_of(run, unpruned) is None
            for run in runs
        )
        if alone:
            lines.append(
                f"{dataset}{_share(alone, total)}: no unpruned run of the same model, data and "
                "settings is there to hold them against; report one of pruner=none with them."
            )
    groups: dict[tuple[str, str], list[Run]] = {}
    for one in unpaired:
        groups.setdefault((dataset_name(one.run), one.reason), []).append(one.run)
    for (dataset, reason), alike in groups.items():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        lines.append(f"{dataset}: no interval, no test: {reason} ({alike[0].folder}{more}).")
    return lines


def _sentences(run: Run) -> list[str]:
    sentences = list(dict.fromkeys(run.notes))
    if run.failed_samples:
        sentences.append(
            f"{run.failed_samples} of {run.samples} samples failed and count as wrong."
        )
    return sentences


def _share(count: int, total: int) -> str:
    return "" if count == total else f" ({count} of {total} runs)"
