"""Paired comparisons of finished runs with their unpruned runs, as a table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcp.core.errors import UserError
from ivcp.report.comparison import Entry, make_entries, merge_repeats, with_statistics, with_tasks
from ivcp.report.paired import pair_entries
from ivcp.report.remarks import missing_statistics
from ivcp.results.load import find_runs

if TYPE_CHECKING:
    import pandas as pd

FRACTIONS = (
    "value", "unpruned", "difference", "difference_low", "difference_high", "relative", "p",
)  # fmt: skip
COUNTS = ("fixed", "regressed")
"""Columns in which a number can be unknown."""


def compare_runs(folders: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """Pruned runs against their unpruned runs, sample by sample; one row a run or task of a group.

    Numbers are those of `ivcp report`, fractions where a report has percent. The interval
    (`difference_low`, `difference_high`) is the 95 % interval of a paired bootstrap; `fixed` and
    `regressed` count the answers that only the pruned or only the unpruned run has right, and `p`
    is that of McNemar's exact test on them. An unknown number is NaN or NA, with a warning that
    says why. A run that was made twice appears once, as the latest.

    Args:
        folders: Run folders or parents of run folders, those of the unpruned runs included.

    Raises:
        UserError: There is no finished run, or no pruned one.
    """
    import pandas as pd

    paths = [folders] if isinstance(folders, str | Path) else list(folders)
    runs, problems = find_runs(paths)
    if not runs:
        raise UserError(" ".join(problems))
    entries = make_entries(merge_repeats(runs)[0])
    statistics, unpaired = pair_entries(entries)
    pruned = [entry for entry in entries if not entry.info.unpruned]
    if not pruned:
        raise UserError("Expected pruned runs beside unpruned ones; all of these are unpruned.")
    for line in (*problems, *missing_statistics(entries, unpaired)):
        warnings.warn(line, stacklevel=2)
    table = pd.DataFrame(map(row, with_tasks(with_statistics(pruned, statistics))))
    return table.astype(dict.fromkeys(FRACTIONS, "float64") | dict.fromkeys(COUNTS, "Int64"))


def row(entry: Entry) -> dict[str, Any]:
    """What the table says of a run or task."""
    paired = entry.paired
    return {
        "model": entry.info.model,
        "dataset": entry.name,
        "pruner": entry.info.pruner,
        "variant": entry.variant.text,
        "ratio": entry.ratio,
        "budget": entry.budget,
        "layers": entry.info.layers,
        "primary_metric": entry.metric.name,
        "value": entry.metric.value,
        "unpruned": entry.base and entry.base.metric.value,
        "difference": entry.difference,
        "difference_low": paired.difference.low,
        "difference_high": paired.difference.high,
        "relative": entry.relative,
        "fixed": paired.fixed,
        "regressed": paired.regressed,
        "p": paired.p,
        "folder": str(entry.run.folder),
    }
