import time

import pytest
import torch
from torch import nn

from ivcp.measure.timing import timed_phases


class Sleeper(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self) -> None:
        time.sleep(self.seconds)


class Model(nn.Module):
    """Vision 20 ms in the first call, decoder 40 ms, 10 ms around them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.vision, self.decoder = Sleeper(0.02), Sleeper(0.04)

    def forward(self, first: bool) -> None:
        time.sleep(0.01)
        if first:
            self.vision()
        self.decoder()


def test_each_phase_gets_its_own_time() -> None:
    model = Model()
    with timed_phases(model, model.vision, model.decoder) as phases:
        for step in range(3):
            model(first=step == 0)
    assert phases.vision == pytest.approx(0.02, abs=0.015)
    assert phases.decoder == pytest.approx(0.04, abs=0.015)
    assert phases.first_token == pytest.approx(0.07, abs=0.03)
    assert phases.decoding == pytest.approx(0.10, abs=0.04)
    assert phases.total == phases.first_token + phases.decoding


def test_hooks_come_off_after_an_exception() -> None:
    model = Model()
    with pytest.raises(ZeroDivisionError), timed_phases(model, model.vision, model.decoder):
        raise ZeroDivisionError
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
