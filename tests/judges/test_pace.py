import random

import pytest

from ivcp.judges.pace import Pace, back_off


def test_turns_are_spaced_evenly(time) -> None:
    pace = Pace(40, time.clock, time.sleep)
    starts = []
    for _ in range(5):
        pace.turn()
        starts.append(time.now - 100)
    assert starts == pytest.approx([0, 1.5, 3, 4.5, 6])
    time.now += 10  # a pause is not made up for by haste
    pace.turn()
    pace.turn()
    assert time.now - 100 == pytest.approx(17.5)


def test_no_limit_never_waits(time) -> None:
    pace = Pace(None, time.clock, time.sleep)
    for _ in range(3):
        pace.turn()
    assert not time.slept


def test_waits_double_up_to_a_minute_and_differ() -> None:
    draw = random.Random(0)
    for attempt, longest in [(0, 1), (1, 2), (5, 32), (6, 60), (2000, 60)]:
        waits = [back_off(min(attempt, 1000), None, draw) for _ in range(200)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(set(waits)) > 100
    assert back_off(0, 20.0, draw) == 20.0
    assert back_off(0, 1e9, draw) == 60.0
    assert back_off(4, 1.0, draw) >= 8
