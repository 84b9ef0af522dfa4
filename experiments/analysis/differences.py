"""Paired differences of methods, and Holm's correction of many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis.samples import Arm, Numbers
from ivcp.core.metric import Statistics, divided
from ivcp.report.bootstrap import interval, mcnemar, resample

RESAMPLES = 10_000
"""So many that a bootstrap p outlives the correction for some hundred tests."""
SEED = 0
DIGITS = 12  # of differences, so that rounding errors of equal means are no difference


def compare(arm: Arm, control: Arm) -> dict[str, Any]:
    """Primary metric of a method and of another, of draws the mean over them, as columns of a row.

    A resample takes the same samples of all draws. p is that of McNemar's exact test where both are
    single runs, else that of the bootstrap.
    """
    draws = lcm(len(arm), len(control))
    primary_value = arm[0].counts.metric.primary_value

    def mean(sums: Statistics) -> Statistics:
        values: Statistics = primary_value(sums.reshape(*sums.shape[:-1], draws, -1)).mean(-1)
        return values

    run, base = (
        np.hstack([run.counts.statistics for run in side] * (draws // len(side)))
        for side in (arm, control)
    )
    columns = _compare(run, base, mean)
    if draws == 1:
        right, other = arm[0].counts.right, control[0].counts.right
        p = mcnemar(int((right & ~other).sum()), int((other & ~right).sum()))
        columns |= {"p": p, "test": "mcnemar"}
    return columns


def compare_boxes(arm: Arm, control: Arm) -> dict[str, Any]:
    """The same of the part of the true box's tokens that remains in the first draw."""
    kept = np.stack([side[0].kept_in_box for side in (arm, control)], axis=1)
    kept = kept[np.isfinite(kept).all(1)]
    run, base = (np.stack([side, np.ones(len(side))], axis=1) for side in kept.T)
    return _compare(run, base, lambda sums: divided(sums[..., 0], sums[..., 1]))


def _compare(
    run: Statistics, base: Statistics, primary_value: Callable[[Statistics], Statistics]
) -> dict[str, Any]:
    values = resample(run, base, primary_value, np.random.default_rng(SEED), RESAMPLES)
    differences = np.round(values[:, 0] - values[:, 1], DIGITS)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    ends = interval(differences)
    value, other = float(primary_value(run.sum(0))), float(primary_value(base.sum(0)))
    return {
        "value": value,
        "against_value": other,
        "difference": round(value - other, DIGITS),
        "low": ends.low,
        "high": ends.high,
        "p": min(1.0, 2 * (tail + 1) / (RESAMPLES + 1)),
        "test": "bootstrap",
    }


def holm(p: Numbers | Sequence[float]) -> Numbers:
    """Each p as if its test were the only one.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    steps = (len(values) - np.arange(len(values))) * values[order]
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def add_holm(table: pd.DataFrame, *family: str) -> pd.DataFrame:
    """The table with `p_holm`, corrected within rows that share the columns of a family."""
    tested = table[table["p"].notna()].groupby(list(family), dropna=False)["p"]
    return table.assign(p_holm=tested.transform(holm) if len(tested) else np.nan)
