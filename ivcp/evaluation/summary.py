"""The accounting of a run, summed up from its records: `efficiency` and `tokens`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ivcp.evaluation.records import TIMES, Record


def tokens_block(records: Sequence[Record]) -> dict[str, float | None]:
    """Means per sample and ratios over all samples; None where nothing is counted.

    `keep_ratio` is what survives the last stage; `layer_average_ratio` is how many visual tokens a
    decoder layer processed on average, both as a fraction of all visual tokens.
    """
    visual = sum(record.visual_tokens for record in records)
    processed = [
        tokens - (record.prompt_tokens - record.visual_tokens)
        for record in records
        for tokens in record.layer_tokens
    ]
    layers = len(records[0].layer_tokens) if records else 0
    return {
        "visual": mean(record.visual_tokens for record in records),
        "kept": mean(record.kept_tokens for record in records),
        "keep_ratio": ratio(sum(record.kept_tokens for record in records), visual),
        "layer_average_ratio": ratio(sum(processed), visual * layers),
        "prompt": mean(record.prompt_tokens for record in records),
    }


def efficiency_block(
    records: Sequence[Record], processes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Memory, operations and times.

    Args:
        records: Samples that were answered.
        processes: Measurements of each process, as `PredictionWriter` leaves them.

    Returns:
        `prefill_flops_formula` is the mean over samples; `prefill_flops_counted` is of one sample,
        `prefill_flops_counted_sample`, and `prefill_flops_counted_to_formula` compares the two for
        that sample. Rates add up over processes and are those of this start, if an interrupted run
        went on; `peak_memory_bytes` is the largest process's. `tokens_per_second` counts the time
        inside `generate`, `samples_per_second` all of it but the warm-up. `halved_batches` counts
        how often memory ran out.
    """
    counted = next((one for one in records if one.prefill_flops_counted is not None), None)
    formula = sum(record.prefill_flops for record in records)
    slowest = max((p["seconds"] for p in processes), default=0.0)
    generating = max((p["generating_seconds"] for p in processes), default=0.0)
    return {
        "kv_cache_bytes": mean(record.kv_cache_bytes for record in records),
        "kv_cache_ratio": ratio(
            sum(record.kv_cache_bytes for record in records),
            sum(record.kv_cache_bytes_unpruned for record in records),
        ),
        "prefill_flops_counted": counted and counted.prefill_flops_counted,
        "prefill_flops_counted_sample": counted and counted.id,
        "prefill_flops_counted_to_formula": counted
        and ratio(counted.prefill_flops_counted or 0, counted.prefill_flops),
        "prefill_flops_formula": mean(record.prefill_flops for record in records),
        "prefill_flops_ratio": ratio(
            formula, sum(record.prefill_flops_unpruned for record in records)
        ),
        **{name: quartiles(getattr(record, name) for record in records) for name in TIMES},
        "tokens_per_second": ratio(sum(p["generated_tokens"] for p in processes), generating),
        "samples_per_second": ratio(sum(p["samples"] for p in processes), slowest),
        "seconds_by_process": [p["seconds"] for p in processes],
        "halved_batches": sum(p["halvings"] for p in processes),
        "peak_memory_bytes": max((p["peak_memory_bytes"] for p in processes), default=None),
    }


def mean(values: Iterable[float]) -> float | None:
    """Arithmetic mean; None of nothing.

    >>> mean([1, 2]), mean([])
    (1.5, None)
    """
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def ratio(part: float, whole: float) -> float | None:
    """`part / whole`; None if there is no whole."""
    return part / whole if whole else None


def quartiles(values: Iterable[float | None]) -> dict[str, float | None]:
    """Median and quartiles of the values that are there.

    >>> quartiles([1.0, None, 3.0])
    {'median': 2.0, 'q1': 1.5, 'q3': 2.5}
    """
    listed = [value for value in values if value is not None]
    if not listed:
        return {"median": None, "q1": None, "q3": None}
    low, middle, high = (float(value) for value in np.quantile(listed, (0.25, 0.5, 0.75)))
    return {"median": middle, "q1": low, "q3": high}
