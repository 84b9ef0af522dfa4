"""Selection never builds anything of the size of the prompt squared, however long its text."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from families import LlamaWindow
from test_invariants import PRUNERS, build
from transformers import LlamaConfig, LlamaModel

from ivcp import pruned
from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.view import TOWER_SIGNALS
from ivcp.engine.prefill import Prefill
from ivcp.measure.peak_bytes import PeakBytes
from ivcp.testing import IMAGE, SMALL, VIDEO, random_model

VISUAL, LIMIT = 4096, 64 * 2**20


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> PeakBytes:
    """Counts what a stage of a prefill allocates."""
    found, stage = PeakBytes(), Prefill._stage

    def metered(self: Prefill, *args: Any) -> Any:
        with found:
            return stage(self, *args)

    monkeypatch.setattr(Prefill, "_stage", metered)
    return found


def test_the_meter_sees_a_square_and_its_end() -> None:
    with PeakBytes() as meter:
        square = torch.zeros(1024, 1024)
        del square
        torch.zeros(512, 1024)
    assert 4 * 1024**2 <= meter.peak < 6 * 1024**2


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "none"])
def test_selection_adds_little(name: str, meter: PeakBytes) -> None:
    text = 2000
    pruner = build(name, 0.5)
    if any(stage.needs & TOWER_SIGNALS for stage in pruner.stages()):
        model, inputs, window = with_tower(text)
    else:
        model, inputs, window = alone(text)
    with torch.no_grad(), pruned(model, pruner, family=window) as session:
        model(**inputs, use_cache=True)
    assert len(session.kept[0]) == VISUAL // 2
    assert VISUAL < meter.peak < LIMIT, f"{meter.peak / 2**20:.1f} MB"


FRAMES, ROWS, COLUMNS = 64, 14, 14


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "none"])
def test_selection_adds_little_to_a_video(name: str, meter: PeakBytes) -> None:
    """64 frames of 196 tokens."""
    small, visual = SMALL["qwen25vl"], FRAMES * ROWS * COLUMNS
    model = random_model(small.config(text={"max_position_embeddings": 16384}))
    assert small.video is not None
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    video = small.video(FRAMES, ROWS, COLUMNS, draw)
    ids = torch.tensor([[2, *video.ids, *range(3, 33)]])
    pruner = build(name, 0.5)
    if name == "vispruner":  # half of them take 784 rounds of a square each, which is minutes
        pruner = build(name, 0.98, important_ratio=0.1)
    with torch.no_grad(), pruned(model, pruner) as session:
        model(input_ids=ids, mm_token_type_ids=2 * (ids == VIDEO).int(), **video.inputs)
    assert len(session.kept[0]) == round(pruner.keep_ratio * visual)
    kept_states = 6 * small.cache_width * 4 * len(session.kept[0])
    assert visual < meter.peak < LIMIT + kept_states, f"{meter.peak / 2**20:.1f} MB"


def alone(text: int) -> tuple[Any, dict[str, Any], LlamaWindow]:
    """A language model with 8 narrow heads, called with embeddings."""
    config = LlamaConfig(
        vocab_size=32, hidden_size=64, intermediate_size=64, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    window = LlamaWindow(ImageLayout((Grid(10, 64, VISUAL // 64),)))
    embeddings = torch.randn(1, VISUAL + text, 64)
    return LlamaModel(config).eval(), {"inputs_embeds": embeddings}, window


def with_tower(text: int) -> tuple[Any, dict[str, Any], None]:
    """LLaVA with an image of as many patches."""
    config = SMALL["llava15"].config(
        text={"max_position_embeddings": 8192},
        vision={"image_size": 256, "num_attention_heads": 8},
    )
    model = random_model(config)
    ids = torch.tensor([[2, *[IMAGE] * VISUAL, *[5] * (text - 1)]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 256, 256)}
    return model, inputs, None


@pytest.mark.parametrize("name", ["ivcp", "foreground", "fastv", "pyramiddrop"])
def test_selection_adds_little_to_a_model_of_7b(name: str, meter: PeakBytes) -> None:
    """32 heads of 128 in bfloat16, where a float32 copy of all keys would take 67 MB."""
    config = LlamaConfig(
        vocab_size=8, hidden_size=256, intermediate_size=64, num_hidden_layers=3, head_dim=128,
        num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaModel(config).bfloat16().eval()
    window = LlamaWindow(ImageLayout((Grid(10, 64, VISUAL // 64),)))
    embeddings = torch.randn(1, VISUAL + 50, 256).bfloat16()
    pruner = build(name, 0.5, **({"layers": [2]} if name == "pyramiddrop" else {"layer": 2}))
    with torch.no_grad(), pruned(model, pruner, family=window) as session:
        model(inputs_embeds=embeddings, use_cache=True)
    assert len(session.kept[0]) == VISUAL // 2
    kept_at_once = 2 * 2 * 32 * 128 * VISUAL // 2  # what is left of keys and values, cut anew
    assert meter.peak < LIMIT + kept_at_once, f"{meter.peak / 2**20:.1f} MB"
