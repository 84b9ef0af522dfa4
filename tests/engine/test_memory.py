"""Selection never builds anything of the size of the prompt squared."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from families import LlamaWindow
from test_invariants import PRUNERS, build
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaModel

from ivcp import pruned
from ivcp.core.layout import Grid, ImageLayout
from ivcp.engine.prefill import Prefill

VISUAL, LIMIT = 4096, 64 * 2**20


class PeakBytes(TorchDispatchMode):
    """Largest number of bytes that new tensors held at one time while the mode was on."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs or {}))
                 if isinstance(x, torch.Tensor)}  # fmt: skip
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata in self.known or storage._cdata in given:
                continue
            self.known.add(storage._cdata)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self.live -= size
        self.known.discard(key)


def test_the_meter_sees_a_square_and_its_end() -> None:
    with PeakBytes() as meter:
        square = torch.zeros(1024, 1024)
        del square
        torch.zeros(512, 1024)
    assert 4 * 1024**2 <= meter.peak < 6 * 1024**2


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "none"])
def test_selection_adds_little(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=256, intermediate_size=256, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaModel(config).eval()
    meter = PeakBytes()
    stage = Prefill._stage

    def metered(self: Prefill, *args: Any) -> Any:
        with meter:
            return stage(self, *args)

    monkeypatch.setattr(Prefill, "_stage", metered)
    window = LlamaWindow(ImageLayout((Grid(10, 64, VISUAL // 64),)))
    embeddings = torch.randn(1, VISUAL + 50, 256)
    with torch.no_grad(), pruned(model, build(name, 0.5), family=window) as session:
        model(inputs_embeds=embeddings, use_cache=True)
    assert len(session.kept[0]) == VISUAL // 2
    assert VISUAL < meter.peak < LIMIT, f"{meter.peak / 2**20:.1f} MB"
