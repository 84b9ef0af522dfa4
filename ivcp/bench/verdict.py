"""What a benchmark found, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ivcp.bench.result import Group, Measured
from ivcp.results.schema import Quartiles


def speed(ratio: Quartiles) -> str:
    """A ratio of times as a gain; none where the quartiles lie on both sides of 1.

    >>> speed(Quartiles(median=0.8, q1=0.7, q3=0.9)), speed(Quartiles(median=1.0, q1=0.9, q3=1.1))
    ('1.25 x faster', 'as fast as unpruned')
    """
    if ratio.median is None or ratio.q1 is None or ratio.q3 is None:
        return "not compared"
    if ratio.q1 <= 1 <= ratio.q3:
        return "as fast as unpruned"
    if ratio.median <= 1:
        return f"{1 / ratio.median:.2f} x faster"
    return f"{ratio.median:.2f} x slower"


def verdict(row: Measured) -> str:
    """The gains of a method in a group, each beside what is possible."""
    if row.status != "ok":
        return row.status
    parts = [f"prefill {speed(row.prefill_ms.ratio)}"]
    if row.flops_ratio:
        parts[0] += f"; FLOPs allow {1 / row.flops_ratio:.2f} x"
    if row.decode_ms_per_token.ratio.median is not None:
        parts.append(f"decoding {speed(row.decode_ms_per_token.ratio)}")
        if row.decode_bytes_ratio:
            parts[-1] += f"; bytes allow {1 / row.decode_bytes_ratio:.2f} x"
    if row.counts is not None and row.counts.kv_cache_bytes.ratio is not None:
        parts.append(f"KV cache {100 * row.counts.kv_cache_bytes.ratio:.1f} %")
    if share := row.pruning_overhead_ms.ratio.median:
        parts.append(f"overhead {100 * share:.1f} % of the unpruned prefill")
    return "; ".join(parts)


def verdicts(groups: Sequence[Group]) -> list[str]:
    """One sentence for each method, over all groups."""
    rows: dict[str, list[Measured]] = {}
    several = len({group.model for group in groups}) > 1
    for group in groups:
        for row in group.methods[1:]:
            name = f"{group.model}, {row.info.label}" if several else row.info.label
            rows.setdefault(name, []).append(row)
    return [f"{name}: {_over_groups(block)}" for name, block in rows.items()]


def _over_groups(rows: Sequence[Measured]) -> str:
    """What all groups of a method say together."""
    if len(rows) == 1:
        return f"{rows[0].verdict}."
    served = [row for row in rows if row.status == "ok"]
    gains = [_gain(row.prefill_ms.ratio.median) for row in served]
    parts = []
    if text := _range(gains, "x"):
        allowed = _range([_gain(row.flops_ratio) for row in served], "x")
        parts.append(f"prefill {text} as fast as unpruned, where FLOPs allow {allowed}")
    gains = [_gain(row.decode_ms_per_token.ratio.median) for row in served]
    if text := _range(gains, "x"):
        allowed = _range([_gain(row.decode_bytes_ratio) for row in served], "x")
        slower = [r for r in served if speed(r.decode_ms_per_token.ratio).endswith("slower")]
        parts.append(
            f"decoding {text}, where bytes allow {allowed}, slower than unpruned in {len(slower)} "
            f"of {len(served)}"
        )
    shares = [row.pruning_overhead_ms.ratio.median for row in served]
    if any(shares) and (text := _range([None if s is None else 100 * s for s in shares], "%")):
        parts.append(f"overhead {text} of the unpruned prefill")
    reasons = dict.fromkeys(row.status for row in rows if row.status != "ok")
    for reason in reasons:
        count = sum(row.status == reason for row in rows)
        parts.append(f"{count} of {len(rows)} not measured ({reason.rstrip('.')})")
    return "; ".join(parts) + "."


def _gain(ratio: float | None) -> float | None:
    return 1 / ratio if ratio else None


def _range(values: Iterable[float | None], unit: str) -> str:
    """The least and the greatest value, in words.

    >>> _range([1.5, None, 1.0], "x"), _range([2.0], "%"), _range([], "x")
    ('1.00 to 1.50 x', '2.00 %', '')
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = f"{min(known):.2f}", f"{max(known):.2f}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"
