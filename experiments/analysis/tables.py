"""Rows of a study's table, and their pivot tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis.differences import compare
from experiments.analysis.samples import Arm, Studies
from ivcp.report.comparison import ALPHA

NUMBERS = (
    "samples", "value", "lowest", "highest", "against_value", "difference", "low", "high", "p",
    "p_holm",
)  # fmt: skip
NAMES = (
    "question", "model", "dataset", "quantity", "method", "settings", "ratio", "layer", "against",
    "test",
)  # fmt: skip
"""Columns of a table. `value` is the mean of draws from `lowest` to `highest`; `low` and `high` are
the ends of the 95 % interval of `difference`, or of `value` where nothing is compared."""
UNPRUNED = "unpruned"
FRACTIONS = ("acc@0.5", "f1", "kept_in_box", "coverage")
"""Quantities in percent."""


@dataclass(frozen=True)
class Analysis:
    """What a study comes to.

    Attributes:
        rows: All numbers.
        tables: Pivot tables by their titles.
        note: What their cells hold.
        figure: The plot.
        files: Further tables by the names of their files.
    """

    rows: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    note: str
    figure: Figure
    files: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def row(
    question: str,
    arm: Arm,
    control: Arm | None = None,
    against: str = UNPRUNED,
    **columns: Any,
) -> dict[str, Any]:
    """The primary metric of a method, compared with a control's if there is one.

    Args:
        question: What the row answers.
        arm: The method.
        control: What it is compared with.
        against: Its name.
        columns: What the arm does not give, or gives otherwise.
    """
    info, values = arm[0].info, [run.value for run in arm]
    found: dict[str, Any] = {
        "question": question,
        "model": info.model,
        "dataset": info.dataset,
        "quantity": info.primary_metric.name,
        "method": info.pruner,
        "settings": "",
        "ratio": info.ratio,
        "layer": info.layer_names,
        "samples": len(arm[0].ids),
        "value": sum(values) / len(values),
    }
    if len(values) > 1:
        found |= {"lowest": min(values), "highest": max(values)}
    if control:
        found |= {"against": against, **compare(arm, control)}
    return found | columns


def unpruned_rows(studies: Studies) -> list[dict[str, Any]]:
    """The unpruned models on test samples."""
    arms = [arm for model in studies.models for arm in studies.unpruned(model).values()]
    return [row(UNPRUNED, arm) for arm in arms]


def to_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows with all columns."""
    table = pd.DataFrame(list(rows), columns=[*NAMES, *NUMBERS])
    return table.astype(dict.fromkeys(NUMBERS, float))


def to_csv(table: pd.DataFrame) -> str:
    """The table with four significant digits."""
    numbers = table.select_dtypes("number")
    rounded = numbers.map(lambda value: float(f"{value:.4g}") + 0.0)  # no -0.0
    if "samples" in rounded:
        rounded["samples"] = rounded["samples"].astype("Int64")
    return table.assign(**rounded).to_csv(index=False, lineterminator="\n")


def cell(each: pd.Series) -> str:
    """A value with the range of its draws and its interval; * where p is below 0.05 after Holm."""
    percent = each["quantity"] in FRACTIONS
    names = ["value", "lowest", "highest", "low", "high"]
    value, *ends = (f"{100 * x:.1f}" if percent else f"{x:.3g}" for x in each[names])
    text = "none" if pd.isna(each["value"]) else value
    text += "" if pd.isna(each["lowest"]) else f" ({ends[0]} to {ends[1]})"
    text += "" if pd.isna(each["low"]) else f" [{ends[2]}, {ends[3]}]"
    return text + ("*" if each["p_holm"] < ALPHA else "")


def pivot(table: pd.DataFrame, index: Sequence[str], columns: str) -> pd.DataFrame:
    """Cells by line and column, both in order of appearance."""
    cells = table.assign(cell=[cell(each) for _, each in table.iterrows()])
    wide = cells.pivot(index=list(index), columns=columns, values="cell").fillna("").reset_index()
    lines = cells[list(index)].drop_duplicates().merge(wide, "left")
    return lines[[*index, *dict.fromkeys(cells[columns])]]


def pivots(
    table: pd.DataFrame, titles: Sequence[str], index: Sequence[str], columns: str
) -> dict[str, pd.DataFrame]:
    """A pivot table for each value of the columns that make its title."""
    blocks = table.groupby(list(titles), sort=False)
    return {" · ".join(map(str, title)): pivot(block, index, columns) for title, block in blocks}


def to_markdown(analysis: Analysis) -> str:
    """The pivot tables below their titles."""
    parts = [analysis.note]
    for title, table in analysis.tables.items():
        lines = [[*table.columns], ["---"] * table.shape[1], *table.to_numpy().tolist()]
        parts.append(f"## {title}")
        parts.append("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))
    return "\n\n".join(parts) + "\n"
