"""Regressions: of right answers on samples, and of accuracies on runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from experiments.analysis.samples import Numbers

STEPS, TOLERANCE = 100, 1e-10
RIDGE = 1e-6
"""Keeps the coefficients of separable data finite; too small to change others."""
LARGEST = 30.0  # log-odds, from where on a probability is 0 or 1


def with_intercept(predictors: Numbers) -> Numbers:
    """(answers, 1 + predictors) of (answers, predictors)."""
    return np.column_stack([np.ones(len(predictors)), predictors])


def logistic(
    predictors: Numbers, right: npt.NDArray[np.bool_], *clusters: npt.NDArray[np.int64]
) -> tuple[Numbers, Numbers]:
    """Coefficients of a logistic regression, the intercept first, and their standard errors.

    Args:
        predictors: (answers, predictors)
        right: (answers,)
        clusters: One or two of (answers,), which number what answers depend on, such as their
            samples and their runs. Errors are robust to each (Cameron, Gelbach and Miller 2011,
            whose intersection of two is here a single answer).
    """
    x = with_intercept(predictors)
    beta = np.zeros(x.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(x @ beta, -LARGEST, LARGEST)))
        information = (x.T * (chance * (1 - chance))) @ x + RIDGE * np.eye(len(beta))
        step = np.linalg.solve(information, x.T @ (right - chance) - RIDGE * beta)
        beta += step
        if np.abs(step).max() < TOLERANCE:
            break
    scores = x * (right - chance)[:, None]
    spread = sum(_squares(scores, cluster) for cluster in clusters)
    if len(clusters) > 1:
        spread = spread - scores.T @ scores
    inverse = np.linalg.inv(information)
    return beta, np.sqrt(np.maximum(np.diag(inverse @ spread @ inverse), 0))


def _squares(scores: Numbers, cluster: npt.NDArray[np.int64]) -> Numbers:
    """Sum over clusters of the squared sum of their scores, with its correction for few."""
    sums = np.zeros((cluster.max() + 1, scores.shape[1]))
    np.add.at(sums, cluster, scores)
    return sums.T @ sums * len(sums) / max(1, len(sums) - 1)


def explained(predictors: Numbers, values: Numbers) -> float:
    """R² of a linear regression with an intercept; NaN where the values do not vary.

    Args:
        predictors: (runs, predictors)
        values: (runs,)
    """
    x = with_intercept(predictors)
    rest = values - x @ np.linalg.lstsq(x, values, rcond=None)[0]
    total = float(((values - values.mean()) ** 2).sum())
    return 1 - float((rest**2).sum()) / total if total else float("nan")
