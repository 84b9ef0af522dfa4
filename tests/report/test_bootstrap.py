"""Intervals and McNemar's test against scipy, slow loops and cases worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats

from ivcp.core.metric import Statistics
from ivcp.report import bootstrap
from ivcp.report.bootstrap import interval, mcnemar, resample
from ivcp.report.comparison import UNKNOWN


def mean(sums: Statistics) -> Statistics:
    fraction: Statistics = sums[..., 0] / sums[..., 1]
    return fraction


def sufficient_statistics(scores: Statistics) -> Statistics:
    return np.stack([scores, np.ones_like(scores)], axis=1)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("fixed", [0, 1, 3, 9, 10, 40])
@pytest.mark.parametrize("regressed", [0, 1, 2, 10, 57])
def test_mcnemar_is_the_exact_sum(fixed: int, regressed: int) -> None:
    total = fixed + regressed
    ways = [comb(total, k) for k in range(total + 1)]
    as_rare = sum(number for number in ways if number <= ways[fixed])
    assert mcnemar(fixed, regressed) == pytest.approx(float(Fraction(as_rare, 2**total)))


def test_two_units_by_hand() -> None:
    """Of two draws, the unit that differs is drawn never, once, twice: 1/4, 1/2, 1/4."""
    drawn = resample(
        sufficient_statistics(np.ones(2)),
        sufficient_statistics(np.array([0.0, 1.0])),
        mean,
        rng(),
        4000,
    )
    assert (drawn[:, 0] == 1).all()
    values, counts = np.unique(drawn[:, 0] - drawn[:, 1], return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


@pytest.mark.parametrize("graded", [False, True])
def test_the_interval_is_that_of_scipy(graded: bool) -> None:
    draw = np.random.default_rng(3)
    run, base = draw.random((2, 120))
    run = 0.5 * run + 0.5 * base
    if not graded:
        run, base = (run > 0.4).astype(float), (base > 0.5).astype(float)
    primary_values = resample(
        sufficient_statistics(run), sufficient_statistics(base), mean, rng(), 20_000
    )
    ours = interval(primary_values[:, 0] - primary_values[:, 1])
    expected = stats.bootstrap(
        (run, base),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=1,
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_f1_is_resampled_as_a_slow_loop_does() -> None:
    draw = np.random.default_rng(5)
    truth = draw.random(150) < 0.5
    answers = [np.where(draw.random(150) < fraction, truth, ~truth) for fraction in (0.7, 0.8)]

    def f1(sums: Statistics) -> Statistics:
        value: Statistics = 2 * sums[..., 0] / sums[..., 1]
        return value

    slow = []
    for _ in range(2000):
        indices = draw.integers(0, 150, 150)
        pair = []
        for answer in answers:
            both = sum(answer[i] and truth[i] for i in indices)
            pair.append(2 * both / (answer[indices].sum() + truth[indices].sum()))
        slow.append(pair[0] - pair[1])
    run, base = (np.stack([a & truth, 1.0 * a + truth], axis=1) for a in answers)
    quick = np.subtract(*resample(run, base, f1, rng()).T)
    ends = [np.quantile(values, [0.025, 0.5, 0.975]) for values in (quick, slow)]
    assert ends[0] == pytest.approx(ends[1], abs=0.012)


def test_equal_runs_never_differ() -> None:
    scores = sufficient_statistics(np.random.default_rng(2).random(50))
    drawn = resample(scores, scores, mean, rng())
    assert drawn.shape == (2000, 2)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert drawn[:, 0].std() > 0.01


def test_every_resample_draws_as_many_units_as_there_are() -> None:
    scores = sufficient_statistics(np.random.default_rng(2).random(50))
    assert (resample(scores, scores, lambda sums: sums[..., 1], rng()) == 50).all()


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    run, base = (
        sufficient_statistics(scores) for scores in np.random.default_rng(2).random((2, 30))
    )
    at_once = resample(run, base, mean, rng(), 500)
    monkeypatch.setattr(bootstrap, "CELLS", 70)
    np.testing.assert_allclose(resample(run, base, mean, rng(), 500), at_once, rtol=1e-12)


def test_an_interval_of_nothing_is_unknown() -> None:
    assert interval(np.array([np.nan, np.inf])) is UNKNOWN
