"""Paired statistics of the same units under two methods: bootstrap intervals, McNemar's test."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import bdtr

from ivcp.core.metric import Statistics
from ivcp.report.comparison import UNKNOWN, Interval

RESAMPLES = 2000
QUANTILES = (0.025, 0.975)
CELLS = 4_000_000
"""Most weights at a time: 32 MB."""


def mcnemar(fixed: int, regressed: int) -> float:
    """The two-sided p of a split so uneven, if fixing and regressing are equally likely.

    >>> mcnemar(1, 7), mcnemar(0, 0)
    (0.0703125, 1.0)
    """
    discordant, fewer = fixed + regressed, min(fixed, regressed)
    # binomtest is the same at even odds, but scipy.stats takes a second to import
    return min(1.0, 2 * float(bdtr(fewer, discordant, 0.5))) if discordant else 1.0


def resample(
    run: Statistics,
    base: Statistics,
    primary_value: Callable[[Statistics], Statistics],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Statistics:
    """Primary metrics of run and baseline in bootstrap resamples, (resamples, 2).

    A resample draws as many units as there are, with repetition, the same for both. Units of equal
    statistics are drawn together: what counts is how often their kind is drawn.

    Args:
        run: (units, sums), at least one unit.
        base: (units, sums), of the same units.
        primary_value: (..., sums) to (...).
        rng: Where the draws come from.
        resamples: Number of resamples.
    """
    kinds, counts = np.unique(np.hstack([run, base]), axis=0, return_counts=True)
    chunk = max(1, CELLS // len(kinds))
    primary_values = []
    for done in range(0, resamples, chunk):
        size = min(chunk, resamples - done)
        weights = rng.multinomial(len(run), counts / len(run), size)  # (size, kinds)
        sums = np.split(weights @ kinds, 2, axis=-1)
        primary_values.append(np.stack([primary_value(side) for side in sums], axis=-1))
    return np.concatenate(primary_values)


def interval(values: Statistics) -> Interval:
    """Where the middle 95 % of the values lie; undefined ones, such as NaN, do not count.

    >>> interval(np.array([0.0, np.nan, 1.0]))
    Interval(low=0.025, high=0.975)
    """
    defined = values[np.isfinite(values)]
    return Interval(*np.quantile(defined, QUANTILES).tolist()) if len(defined) else UNKNOWN
