"""A benchmark as a table of text: Markdown to read, CSV to go on with."""

from __future__ import annotations

import csv
import io
from typing import Any

from ivcp.bench.result import BenchResult, Compared, Counts, Group, Measured
from ivcp.results.schema import Quartiles

COMPARED = tuple(
    name for name, each in Measured.model_fields.items() if each.annotation is Compared
)
COUNTED = tuple(Counts.model_fields)


def csv_text(result: BenchResult) -> str:
    """One row for each method of each group; medians have the plain name of their quantity."""
    rows = [_values(group, row) for group, row in result.rows]
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        shown = {name: "" if value is None else value for name, value in row.items()}
        writer.writerow({n: f"{v:.6g}" if isinstance(v, float) else v for n, v in shown.items()})
    return file.getvalue()


def _values(group: Group, row: Measured) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": group.model, "dtype": group.dtype, "attention": group.attention,
        "visual_tokens": group.visual_tokens, "prompt_tokens": group.prompt_tokens,
        "batch_size": group.batch_size, "pruner": row.info.pruner, "variant": row.info.variant,
        "ratio": row.info.ratio, "layers": " ".join(map(str, row.info.layers)),
        "status": row.status,
    }  # fmt: skip
    for name in COMPARED:
        both: Compared = getattr(row, name)
        for suffix, spread in (("", both.value), ("_ratio", both.ratio)):
            values |= {
                f"{name}{suffix}": spread.median, f"{name}{suffix}_q1": spread.q1,
                f"{name}{suffix}_q3": spread.q3,
            }  # fmt: skip
    for name in COUNTED:
        counted = row.counts and getattr(row.counts, name)
        values[f"{name}_unpruned"] = counted and counted.unpruned
        values[f"{name}_pruned"] = counted and counted.pruned
        values[f"{name}_ratio"] = counted and counted.ratio
    values["decode_bytes_ratio"] = row.decode_bytes_ratio
    values["synchronisations"] = row.synchronisations
    return values


def notes(result: BenchResult) -> list[str]:
    """What a reader of the numbers must know, one sentence each."""
    run, groups = result.run, result.groups
    device = f"cpu, {run.threads} threads" if run.device == "cpu" else run.device
    kinds = dict.fromkeys(f"{g.model} {g.dtype}, {g.attention}" for g in groups)
    lines = [
        f"{device} ({run.machine}); {'; '.join(kinds)}; {run.new_tokens} new tokens; medians "
        f"[quartiles] of {run.repeats} repeats. Ratios are over unpruned, repeat by repeat; that "
        "of the overhead is over the unpruned prefill. Limits are FLOPs for the prefill, and bytes "
        "of weights and cache for decoding.",
    ]
    for group in groups:
        others = [n for n in group.wanted_tokens if n != group.visual_tokens]
        if others:
            lines.append(
                f"{group.model}: for {', '.join(map(str, others))} visual tokens, the nearest "
                f"prompt has {group.visual_tokens}."
            )
    lines += [group.warning for group in groups if group.warning]
    if any("flash" in group.attention for group in groups):
        lines.append("Counted FLOPs lack attention: PyTorch does not see FlashAttention's kernels.")
    return list(dict.fromkeys([*lines, *run.notes]))


MARKDOWN = (
    "method", "before layer", "first token ms", "vision ms", "prefill ms", "prefill ratio",
    "FLOPs ratio", "overhead ms", "overhead ratio", "ms a token", "decode ratio", "bytes ratio",
    "KV ratio", "answers/s", "tokens/s", "peak GB", "waits",
)  # fmt: skip


def markdown(result: BenchResult) -> str:
    """Verdicts, then a table for each group."""
    lines = [f"- {text}" for text in result.verdicts]
    lines += ["", *notes(result)]
    if result.run.command:
        lines += ["", f"```bash\n{result.run.command}\n```"]
    peak = any(row.peak_memory_bytes.value.median for _, row in result.rows)
    waits = any(row.synchronisations is not None for _, row in result.rows)
    names = [n for n in MARKDOWN if (n != "peak GB" or peak) and (n != "waits" or waits)]
    for group in result.groups:
        lines += [
            "",
            f"## {group.title}",
            "",
            f"| {' | '.join(names)} |",
            "|---" * len(names) + "|",
        ]
        for row in group.methods:
            cells = _markdown_cells(row)
            lines.append(f"| {' | '.join(cells[name] for name in names)} |")
    return "\n".join(lines) + "\n"


def _markdown_cells(row: Measured) -> dict[str, str]:
    cells = dict.fromkeys(MARKDOWN, "")
    cells["method"] = row.info.label
    cells["before layer"] = ", ".join(map(str, row.info.layers))
    if row.status != "ok":
        return {**cells, "first token ms": row.status}

    def number(value: float | None, digits: int, scale: float = 1) -> str:
        return "" if value is None else f"{value * scale:.{digits}f}"

    values = {
        "first token ms": (row.time_to_first_token_ms, 1), "vision ms": (row.vision_ms, 1),
        "prefill ms": (row.prefill_ms, 1), "ms a token": (row.decode_ms_per_token, 2),
        "answers/s": (row.samples_per_second, 2), "tokens/s": (row.tokens_per_second, 1),
    }  # fmt: skip
    cells |= {name: number(each.value.median, digits) for name, (each, digits) in values.items()}
    cells["peak GB"] = number(row.peak_memory_bytes.value.median, 2, 1e-9)
    cells["waits"] = "" if row.synchronisations is None else str(row.synchronisations)
    if row.counts is not None:
        cells["prefill ratio"] = spread(row.prefill_ms.ratio)
        cells["decode ratio"] = spread(row.decode_ms_per_token.ratio)
        cells["FLOPs ratio"] = number(row.flops_ratio, 3)
        cells["bytes ratio"] = number(row.decode_bytes_ratio, 3)
        cells["overhead ms"] = number(row.pruning_overhead_ms.value.median, 2)
        cells["overhead ratio"] = number(row.pruning_overhead_ms.ratio.median, 4)
        cells["KV ratio"] = number(row.counts.kv_cache_bytes.ratio, 4)
    return cells


def spread(ratio: Quartiles) -> str:
    """A ratio's median and quartiles.

    >>> spread(Quartiles(median=0.5, q1=0.25, q3=0.75)), spread(Quartiles())
    ('0.500 [0.250, 0.750]', '')
    """
    if ratio.median is None:
        return ""
    return f"{ratio.median:.3f} [{ratio.q1:.3f}, {ratio.q3:.3f}]"
