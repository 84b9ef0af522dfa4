"""A model spread over several devices, played on one: no operation of the engine may mix them.

Every tensor carries a tag for the device that it would be on. Layers pull their inputs over, as
`device_map` makes them; `.to` and `device=` change tags; an operation in this package that is given
tensors of two devices is a fault, as it would be on real ones.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_invariants import build, every_pair
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

import ivcp
from ivcp import pruned
from ivcp.core.selection import top
from ivcp.core.similarity import summed_similarity
from ivcp.models import find_family
from ivcp.testing import SMALL, batch_of, single

HOST = torch.device("cpu")
PACKAGE = Path(ivcp.__file__).parent


def tag(tensor: Tensor) -> torch.device:
    return getattr(inner(tensor), "_played", HOST)


def inner(tensor: Tensor) -> Tensor:
    """The tensor that `vmap` has wrapped."""
    while is_batchedtensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


WAITING = ("item", "tolist", "cpu", "nonzero", "unique", "__bool__", "__int__", "__float__")


class Devices(TorchFunctionMode):
    """Plays devices.

    Attributes:
        faults: Places in the package that mixed devices.
        waits: Places in the package where the host would wait for a device, each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults: set[str] = set()
        self.waits: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return tag(args[0])
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        target = kwargs.get("device")
        if name in WAITING and tag(given[0]) != HOST:
            self.waits += place_of(name)
        if name == "to":
            found = [a for a in (*args[1:], target) if isinstance(a, torch.device)]
            found += [tag(a) for a in args[1:] if isinstance(a, Tensor)]
            target = found[0] if found else None
            if target not in (None, tag(given[0])) and not kwargs.get("non_blocking"):
                self.waits += place_of(name)
            args = tuple(HOST if isinstance(a, torch.device) else a for a in args)
        elif name == "cpu":
            target = HOST
        elif name not in ("copy_", "__setitem__"):
            self._check(name, [t for t in given if t.ndim])
        if "device" in kwargs:
            kwargs["device"] = HOST
        out = func(*args, **kwargs)
        here = target if target is not None else max((tag(t) for t in given), key=str, default=HOST)
        if name == "to" and target is not None and out is args[0] and here != tag(args[0]):
            out = out.view_as(out)
        for made in tree_leaves(list(out) if isinstance(out, tuple) else out):
            if isinstance(made, Tensor):
                inner(made)._played = here
        return out

    def _check(self, name: str, given: list[Tensor]) -> None:
        if len({tag(t) for t in given}) > 1:
            self.faults |= place_of(name)


def place_of(name: str) -> set[str]:
    """Where the package called an operation; empty if another one did, or the backport's model."""
    frame: Any = sys._getframe(1)
    while "/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PACKAGE) or path.is_relative_to(PACKAGE / "models" / "backports"):
        return set()
    return {f"{path.relative_to(PACKAGE)}:{frame.f_lineno} {name}"}


@cache
def placed(family: str) -> Any:
    """The family's random model on device 0."""
    model = SMALL[family].model()
    for weight in (*model.parameters(), *model.buffers()):
        weight._played = torch.device("xpu", 0)
    model.set_experts_implementation("eager")  # the others ask for the kind of the device
    return model


@cache
def spread(family: str) -> Any:
    """The same, but layer i of the decoder is on device i // 2 and pulls its inputs over."""
    model = placed.__wrapped__(family)
    for index, layer in enumerate(find_family(model).decoder(model).layers):
        device = torch.device("xpu", index // 2)
        for weight in layer.parameters():
            weight._played = device
        own = layer.forward

        def forward(*args: Any, _own: Any = own, _device: Any = device, **kwargs: Any) -> Any:
            def pull(x: Any) -> Any:
                return x.to(_device) if isinstance(x, Tensor) else x

            return _own(*tree_map(pull, args), **tree_map(pull, kwargs))

        layer.forward = forward
    return model


def test_the_play_sees_mixed_devices() -> None:
    with Devices() as devices:
        scores = torch.ones(3).to(torch.device("xpu", 1))
        assert scores.device == top(scores, 2).device == torch.device("xpu", 1)
        assert not devices.faults
        summed_similarity(torch.ones(1, 2, 4), torch.ones(1, 3, 4).to(torch.device("xpu", 1)))
    assert any("similarity.py" in fault for fault in devices.faults)


@every_pair
@pytest.mark.parametrize("batch", ["single", "ragged"])
def test_no_operation_mixes_devices(family: str, name: str, batch: str) -> None:
    model, inputs = spread(family), batch_of(family).inputs
    if batch == "single":
        inputs = single(batch_of(family), 1)
    with torch.no_grad(), pruned(model, build(name, 0.4, family)) as session, Devices() as devices:
        inputs = {key: value.to(torch.device("xpu", 0)) for key, value in inputs.items()}
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert not devices.faults
    assert session.kept


@every_pair
def test_a_prefill_waits_for_the_device_once(family: str, name: str) -> None:
    """To read where images stand; lengths are known on the host from there on."""
    model, inputs = placed(family), batch_of(family).inputs
    with torch.no_grad(), pruned(model, build(name, 0.4, family)), Devices() as devices:
        inputs = {key: value.to(torch.device("xpu", 0)) for key, value in inputs.items()}
        devices.waits.clear()
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert [wait for wait in devices.waits if "host.py" not in wait] == []
    assert len(devices.waits) == 1
