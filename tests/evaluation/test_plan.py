from __future__ import annotations

import random

import pytest

from ivcp.evaluation.plan import cut, share, unfinished


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("count", range(8))
def test_every_batch_has_one_process(count, processes) -> None:
    costs = [random.Random(count).random() for _ in range(count)]
    shares = share(costs, processes)
    assert len(shares) == processes
    assert sorted(place for own in shares for place in own) == list(range(count))
    assert all(own == sorted(own) for own in shares)
    assert not count or shares[0][0] == 0


def test_costs_are_balanced_where_counts_would_not_be() -> None:
    draw = random.Random(0)
    costs = [draw.lognormvariate(0, 1.5) for _ in range(200)]
    loads = [sum(costs[place] for place in own) for own in share(costs, 2)]
    assert max(loads) < 1.01 * min(loads)
    first, second = sum(costs[:100]), sum(costs[100:])
    assert max(first, second) > 1.05 * min(first, second)


def test_batches_do_not_depend_on_who_evaluates_them() -> None:
    assert cut(7, 3) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert cut(0, 3) == []


def test_a_batch_with_a_missing_answer_is_evaluated_anew() -> None:
    assert unfinished(cut(7, 3), {0, 1, 2, 3, 5}) == [(3, 4, 5), (6,)]
