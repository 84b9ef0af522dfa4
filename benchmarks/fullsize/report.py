"""The files that the full-size check writes: a table, its short form, the targets and a plot."""

from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.bench import quartiles

Row = dict[str, Any]
KEY = (
    "size", "device", "model", "attention", "dtype", "visual_tokens_wanted", "batch", "method",
    "keep_ratio", "before_layers",
)  # fmt: skip
"""Columns that identify a combination."""


def spread_columns(name: str) -> tuple[str, ...]:
    """Columns of a quantity with quartiles; the first is the median."""
    return name, f"{name}_q1", f"{name}_q3"


COLUMNS = (
    *KEY, "status", "visual_tokens", "prompt_tokens", "repeats", "decode_tokens",
    *spread_columns("first_token_ms"), *spread_columns("vision_tower_ms"),
    *spread_columns("prefill_ms"), *spread_columns("pruning_overhead_ms"),
    *spread_columns("decode_ms_per_token"),
    *spread_columns("first_token_time_ratio"), *spread_columns("prefill_time_ratio"),
    "prefill_flops", "prefill_flops_ratio", "prefill_time_ratio_over_flops_ratio",
    *spread_columns("overhead_share_of_unpruned_prefill"), *spread_columns("decode_time_ratio"),
    "kv_cache_bytes", "kv_cache_ratio", "kept_tokens_fraction",
    "kv_cache_ratio_over_kept_fraction", "peak_memory_bytes", "synchronisations_in_layers",
)  # fmt: skip
BASELINES = ("unpruned", "none")


@dataclass(frozen=True)
class Target:
    """A range for one column of each pruned row.

    Attributes:
        text: The target in words.
        column: The column.
        low: Smallest value that meets it.
        high: Largest value that meets it.
        tokens: Fewest visual tokens that it applies to.
    """

    text: str
    column: str
    low: float
    high: float
    tokens: int = 0


TARGETS = (
    Target(
        "prefill time ratio within 5 % of the FLOPs ratio",
        "prefill_time_ratio_over_flops_ratio", 0.95, 1.05,
    ),
    Target(
        "KV-cache ratio within 1 % of the kept fraction of tokens",
        "kv_cache_ratio_over_kept_fraction", 0.99, 1.01,
    ),
    Target(
        "pruning overhead at most 2 ms a batch from 4,096 visual tokens on",
        "pruning_overhead_ms", 0.0, 2.0, 4096,
    ),
    Target(
        "pruning overhead at most 1 % of the unpruned prefill from 4,096 visual tokens on",
        "overhead_share_of_unpruned_prefill", 0.0, 0.01, 4096,
    ),
    Target("decoding no slower than unpruned", "decode_time_ratio", 0.0, 1.0),
)  # fmt: skip


def spread(name: str, values: list[float]) -> Row:
    """Median and quartiles as three columns."""
    spread = quartiles(values)
    return dict(zip(spread_columns(name), (spread[k] for k in ("median", "q1", "q3")), strict=True))


def number(row: Row, column: str) -> float:
    """A cell as a number; nan where it is empty."""
    cell = row.get(column, "")
    return float(cell) if cell != "" else math.nan


def combination(row: Row) -> tuple[str, ...]:
    """The cells that identify a row."""
    return tuple(str(row[column]) for column in KEY)


def check_targets(rows: list[Row]) -> list[dict[str, Any]]:
    """For each target how many pruned rows meet it; `met` is None where no row applies."""
    checks: list[dict[str, Any]] = []
    for target in TARGETS:
        measured = [
            row
            for row in rows
            if row["status"] == "ok" and row["method"] not in BASELINES
            and number(row, "visual_tokens") >= target.tokens
            and not math.isnan(number(row, target.column))
        ]  # fmt: skip
        missed = [
            row for row in measured if not target.low <= number(row, target.column) <= target.high
        ]
        values = [number(row, target.column) for row in measured]
        checks.append(
            {
                "target": target.text,
                "column": target.column,
                "met": not missed if measured else None,
                "rows": len(measured),
                "rows_met": len(measured) - len(missed),
                "smallest": min(values, default=None),
                "largest": max(values, default=None),
                "missed_by": sorted({row["method"] for row in missed}),
            }
        )
    return checks


class Results:
    """Rows on disk; the table is replaced as a whole, so that a kill leaves the old or the new one.

    Args:
        folder: Folder of the files; rows that it holds already are kept.
        about: Machine, versions and command, for `results.json`.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.rows: list[Row] = []
        folder.mkdir(parents=True, exist_ok=True)
        if (table := folder / "results.csv").is_file():
            with table.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))
        self.done = {combination(row) for row in self.rows}

    def add(self, rows: list[Row]) -> None:
        """Save new rows and rewrite all files."""
        for row in rows:
            if combination(row) not in self.done:
                cells = {column: row.get(column, "") for column in COLUMNS}
                self.rows.append(
                    {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in cells.items()}
                )
                self.done.add(combination(row))
        draft = self.folder / "results.csv.new"
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(draft, self.folder / "results.csv")
        self.write()

    def write(self) -> None:
        """Write short table, targets and plot of the rows so far."""
        targets = check_targets(self.rows)
        record = {**self.about, "rows": len(self.rows), "targets": targets}
        (self.folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
        (self.folder / "results.md").write_text(markdown(self.rows, targets, self.about))
        plot(self.rows, self.folder / "plot.png")


def cell(row: Row, column: str, digits: int, scale: float = 1.0) -> str:
    """A rounded cell; empty where nothing was measured."""
    value = number(row, column)
    return "" if math.isnan(value) else f"{scale * value:.{digits}f}"


def markdown(rows: list[Row], targets: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Targets and medians as Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in about.get("machine", {}).items())
    lines = [
        f"{machine}. Medians; quartiles are in results.csv.",
        "",
        "| target | met | rows that meet it | range | missed by |",
        "|---|---|---|---|---|",
    ]
    for check in targets:
        met = {True: "yes", False: "no", None: "not measured"}[check["met"]]
        ends = f"{check['smallest']:.3g} to {check['largest']:.3g}" if check["rows"] else ""
        cells = (check["target"], met, f"{check['rows_met']} of {check['rows']}", ends)
        lines.append(f"| {' | '.join(cells)} | {', '.join(check['missed_by'])} |")
    columns = (
        "V", "batch", "method", "keep", "before", "first token ms", "vision ms", "prefill ms",
        "prefill ratio", "FLOPs ratio", "time / FLOPs", "overhead ms", "overhead share",
        "decode ms/token", "decode ratio", "KV ratio", "kept fraction", "peak GiB",
    )  # fmt: skip
    titles = dict.fromkeys(
        (row["model"], row["size"], row["attention"], row["dtype"], row["device"]) for row in rows
    )
    for title in titles:
        model, size, attention, dtype, device = title
        lines += ["", f"## {model}, {size}, {dtype}, {attention}, {device}", ""]
        lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        for row in rows:
            if (row["model"], row["size"], row["attention"], row["dtype"], row["device"]) != title:
                continue
            cells = [row["visual_tokens"] or row["visual_tokens_wanted"], row["batch"],
                     row["method"], row["keep_ratio"], row["before_layers"]]  # fmt: skip
            if row["status"] == "ok":
                cells += [
                    cell(row, "first_token_ms", 1), cell(row, "vision_tower_ms", 1),
                    cell(row, "prefill_ms", 1), cell(row, "prefill_time_ratio", 3),
                    cell(row, "prefill_flops_ratio", 3),
                    cell(row, "prefill_time_ratio_over_flops_ratio", 3),
                    cell(row, "pruning_overhead_ms", 2),
                    cell(row, "overhead_share_of_unpruned_prefill", 4),
                    cell(row, "decode_ms_per_token", 2), cell(row, "decode_time_ratio", 3),
                    cell(row, "kv_cache_ratio", 4), cell(row, "kept_tokens_fraction", 4),
                    cell(row, "peak_memory_bytes", 2, 2**-30),
                ]  # fmt: skip
            else:
                cells += [row["status"], *[""] * (len(columns) - len(cells) - 1)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """Prefill time against FLOPs, and decoding against visual tokens, all against unpruned."""
    from matplotlib.figure import Figure

    pruned = [row for row in rows if row["status"] == "ok" and row["method"] not in BASELINES]
    methods = list(dict.fromkeys(row["method"] for row in pruned))
    models = list(dict.fromkeys(row["model"] for row in pruned))
    counts = sorted({int(row["visual_tokens"]) for row in pruned})
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, method in enumerate(methods):
        colour, shift = f"C{index}", (index - (len(methods) - 1) / 2) * 0.6 / max(1, len(methods))
        for model in models:
            points = [row for row in pruned if row["method"] == method and row["model"] == model]
            style = {"color": colour, "marker": "os^D"[models.index(model) % 4], "alpha": 0.75}
            style |= {"linestyle": "none", "markersize": 6, "markeredgewidth": 0}
            flops = [number(row, "prefill_flops_ratio") for row in points]
            left.plot(flops, [number(row, "prefill_time_ratio") for row in points], **style)
            positions = [counts.index(int(row["visual_tokens"])) + shift for row in points]
            right.plot(positions, [number(row, "decode_time_ratio") for row in points], **style)
        left.plot([], [], color=colour, marker="o", linestyle="none", label=method)
    for model in models:
        marker = "os^D"[models.index(model) % 4]
        left.plot([], [], color="0.4", marker=marker, linestyle="none", label=model)
    ends = [0.0, 1.1]
    left.plot(ends, ends, color="0.3", linewidth=1)
    left.fill_between(
        ends, [0, 0.95 * 1.1], [0, 1.05 * 1.1], color="0.88", zorder=0, label="within 5 %"
    )
    lowest = [number(row, name) for row in pruned for name in
              ("prefill_flops_ratio", "prefill_time_ratio")]  # fmt: skip
    floor = max(0.0, math.floor(10 * min((v for v in lowest if v == v), default=0)) / 10)
    left.set(xlim=(floor - 0.02, 1.02), xlabel="prefill FLOPs, of unpruned")
    left.set(ylabel="prefill time, of unpruned", title="Time that pruning saves in prefill")
    left.set_ylim(bottom=floor - 0.02)
    right.axhline(1, color="0.3", linewidth=1)
    right.set_xticks(range(len(counts)), [f"{count:,}" for count in counts])
    right.set(xlabel="visual tokens", ylabel="time of a decoded token, of unpruned",
              title="Decoding: below the line is faster")  # fmt: skip
    right.set_xlim(-0.5, max(1, len(counts)) - 0.5)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=9, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
