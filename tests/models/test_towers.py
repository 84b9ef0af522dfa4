"""Vision towers as read by `TowerSignals`, against what the library itself computes.

Which patches make up a token is found by gradients: a token of the model's own output depends on
the rows of the projector's input that it was made of, and on no others. A newline depends on none.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from expected import EXPECTED
from torch import Tensor
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from ivcp.core.errors import UserError
from ivcp.core.tower import VisionTower
from ivcp.engine import tower_signals as engine
from ivcp.engine.tower_signals import TowerSignals
from ivcp.measure.peak_bytes import PeakBytes
from ivcp.models import find_family
from ivcp.models.towers import LlavaTower
from ivcp.models.towers_qwen import QwenTower
from ivcp.testing import SMALL, prompts, random_model

VIDEOS = [name for name, small in SMALL.items() if small.video]
TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass(frozen=True)
class Case:
    """A model, and a call of its image or video encoder."""

    entry: Any
    tower: VisionTower
    call: dict[str, Any]


def roughened(model: Any) -> Any:
    """The model with such large weights in tower and projector that attention is far from even."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.model.named_parameters():
            if "language_model" not in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    return model


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def varied(family: str, change: Callable[[Any], None]) -> Any:
    """A family's random model with another configuration."""
    model = SMALL[family].model("eager")
    config = copy.deepcopy(model.config)
    change(config)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    return roughened(type(model)(config).eval())


def odd(config: Any) -> None:
    config.vision_config.image_size = 20  # 5 x 5 patches make 3 x 3 tokens


def normed(config: Any) -> None:
    config.vision_config.use_qk_norm = True
    config.vision_config.use_mean_pooling = False  # a norm stands behind the last block


def siglip(config: Any) -> None:
    other = SMALL["deepseekvl"].model("eager").config.vision_config
    config.vision_config, config.vision_feature_select_strategy = other, "full"


def last(config: Any) -> None:
    config.vision_feature_layer = -1


def inner(config: Any) -> None:
    config.vision_feature_layer = 1  # the library itself fails with 0


VARIANTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "internvl, norms": ("internvl", normed),
    "internvl, inner layer": ("internvl", inner),
    "llava15, siglip": ("llava15", siglip),
    "llava15, last layer": ("llava15", last),
    "llavanext, inner layer": ("llavanext", inner),
    "deepseekvl2, odd side": ("deepseekvl2", odd),
}


@cache
def case(name: str) -> Case:
    """Several images of different sizes, or videos, or a model that is configured otherwise."""
    family, change = VARIANTS.get(name, (name.removesuffix(" videos"), None))
    model = varied(family, change) if change else roughened(SMALL[family].model("eager"))
    if name.endswith(" videos"):
        make, generator = SMALL[family].video, torch.Generator().manual_seed(3)
        assert make is not None
        draw = partial(torch.randn, generator=generator)
        times = (2, 2, 2) if EXPECTED[family].equal_frames else (3, 2, 1)
        shapes = zip(times, (4, 3, 2), (6, 2, 5), strict=True)
        videos = [make(*shape, draw).inputs for shape in shapes]
        call = {key: torch.cat([video[key] for video in videos]) for key in videos[0]}
    elif change is odd:
        crops = torch.tensor([[2, 3], [1, 1], [1, 2]])
        call = {"pixel_values": randn(7 + 2 + 3, 3, 20, 20), "images_spatial_crop": crops}
    else:
        a, b, c, d = SMALL[family].images
        inputs = prompts([3, a, 2, b, c, 1], [2, d, 1], [4, a, 1], family=family).inputs
        call = {key: value for key, value in inputs.items() if key not in TEXT}
    return Case(model.model, find_family(model).tower(model), call)


WEIGHED = {"llava_onevision": 4}
"""Images whose tokens the library makes of patches by their distance, and the tower evenly."""
CASES = [*SMALL, *(f"{name} videos" for name in VIDEOS), *VARIANTS]


@dataclass
class Truth:
    """What the library did in one call.

    Attributes:
        blocks: Input and keyword arguments of each block.
        states: (R, Ct) of the projector's features.
        weights: For each block, the attention weights of its segments, (H, N, N) each.
        keys: For each block, (H, R, D).
        embeddings: For each image, (V, C) embeddings of its visual tokens, newlines left out.
        made_of: For each image, the rows of the tower that each of its tokens depends on.
    """

    blocks: dict[int, tuple[Tensor, dict[str, Any]]] = field(default_factory=dict)
    states: Tensor = field(default_factory=lambda: torch.empty(0))
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)
    embeddings: list[Tensor] = field(default_factory=list)
    made_of: list[list[list[int]]] = field(default_factory=list)

    def received(self, block: int, cls: bool) -> Tensor:
        """(R,) attention that each row receives within its segment."""
        mean = [weights.mean(0) for weights in self.weights[block]]
        return torch.cat([part[0] if cls else part.mean(0) for part in mean])

    def by_token(self, values: Tensor) -> list[Tensor]:
        """For each image, the means of (..., R) values over the rows behind each token."""
        return [
            torch.stack([values[..., rows].mean(-1) for rows in tokens], -1)
            for tokens in self.made_of
        ]


@contextmanager
def recorded(case: Case, truth: Truth) -> Any:
    """Note weights and keys of each block's attention: the library's own, by its eager backend."""
    owner = {
        id(part): index for index, block in enumerate(case.tower.blocks) for part in block.modules()
    }
    library = sys.modules[type(case.tower.blocks[0]).__module__]
    original = library.eager_attention_forward

    def attend(module: Any, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        output, weights = original(module, query, key, *args, **kwargs)
        index = owner[id(module)]
        truth.weights.setdefault(index, []).extend(weights.detach())
        parts = [truth.keys[index]] if index in truth.keys else []
        truth.keys[index] = torch.cat([*parts, *key.detach()], 1)
        return output, weights

    library.eager_attention_forward = attend
    try:
        yield
    finally:
        library.eager_attention_forward = original


@cache
def truth_of(name: str) -> Truth:
    found, truth, site = case(name), Truth(), []
    handles = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs, index=index: truth.blocks.update(
                {index: (args[0].detach().flatten(0, -2), kwargs)}
            ),
            with_kwargs=True,
        )
        for index, block in enumerate(found.tower.blocks)
    ]
    module, side = found.tower.feature_site
    if side == "input":
        handles.append(module.register_forward_pre_hook(lambda _, args: site.append(args[0])))
    else:
        handles.append(module.register_forward_hook(lambda _, args, out: site.append(out)))
    encode = "get_video_features" if "pixel_values_videos" in found.call else "get_image_features"
    with recorded(found, truth):
        output = getattr(found.entry, encode)(**found.call).pooler_output
    for handle in handles:
        handle.remove()
    assert len(site) == 1
    truth.states = site[0].detach().flatten(0, -2)
    for image in output:
        tokens = [
            torch.autograd.grad((token * token.detach()).sum(), site[0], retain_graph=True,
                                allow_unused=True)[0]
            for token in image
        ]  # fmt: skip
        rows = [
            [] if grad is None else grad.flatten(0, -2).abs().sum(1).nonzero()[:, 0].tolist()
            for grad in tokens
        ]
        shown = [index for index, one in enumerate(rows) if one]
        truth.embeddings.append(image.detach()[shown])
        truth.made_of.append([rows[index] for index in shown])
    return truth


def reading_of(name: str) -> TowerSignals:
    truth = truth_of(name)
    return TowerSignals(case(name).tower, case(name).call, truth.blocks, truth.states)


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_made_of_the_patches_they_depend_on(name: str) -> None:
    patches, truth = case(name).tower.patches(case(name).call), truth_of(name)
    assert len(patches) == len(truth.made_of)
    for own, expected in zip(patches, truth.made_of, strict=True):
        assert own.device.type == "cpu"
        assert [sorted(set(row[row >= 0].tolist())) for row in own] == expected
    cls = torch.cat(case(name).tower.cls_rows(case(name).call)).tolist()
    everything = {row for tokens in truth.made_of for token in tokens for row in token}
    assert not everything & set(cls)
    assert bool(cls) == case(name).tower.has_cls


@pytest.mark.parametrize("name", CASES)
def test_segments_are_those_within_which_the_library_attends(name: str) -> None:
    tower, truth = case(name).tower, truth_of(name)
    for index in range(len(tower.blocks)):
        found = tower.segments(index, case(name).call)
        assert found == [weights.shape[-1] for weights in truth.weights[index]]


@pytest.mark.parametrize("limits", [(), (40, 40, 400), (3000, 10**9, 10**9), (1, 1, 1)])
@pytest.mark.parametrize("name", CASES)
def test_attention_is_the_library_s(
    name: str, limits: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in zip(("SCORES", "KEYS", "STATES"), limits, strict=False):
        monkeypatch.setattr(engine, limit, value)
    tower, truth, reading = case(name).tower, truth_of(name), reading_of(name)
    patches = tower.patches(case(name).call)
    for index in range(len(tower.blocks)):
        for queries in ("cls", "all") if tower.has_cls else ("all",):
            received = reading.attention(index, queries)
            expected = truth.received(index, queries == "cls")
            assert received.dtype == torch.float32
            torch.testing.assert_close(received, expected, atol=1e-6, rtol=1e-4)
            assert expected.max() > 1.5 * expected.min()  # so that a wrong order would show
            assert reading.attention(index, queries) is received
            for own, mean in zip(patches, truth.by_token(expected), strict=True):
                found = reading.token_mean(received, own)
                torch.testing.assert_close(found, mean, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("limits", [(), (1, 1, 1)])
@pytest.mark.parametrize("name", ["llava15", "internvl", "qwen25vl"])
def test_joined_heads_are_one_wide_head(
    name: str, limits: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in zip(("SCORES", "KEYS", "STATES"), limits, strict=False):
        monkeypatch.setattr(engine, limit, value)
    tower, truth, reading = case(name).tower, truth_of(name), reading_of(name)
    for index, (hidden, context) in truth.blocks.items():
        rows, received = slice(0, len(hidden)), []
        queries, keys = (
            read(tower.blocks[index], hidden, rows, context).transpose(0, 1).flatten(1)  # (R, H D)
            for read in (tower.queries, tower.keys)
        )
        for q, k in zip(
            queries.split(tower.segments(index, case(name).call)),
            keys.split(tower.segments(index, case(name).call)),
            strict=True,
        ):
            received.append((q @ k.T / q.shape[1] ** 0.5).softmax(-1))
        for who in ("cls", "all") if tower.has_cls else ("all",):
            expected = torch.cat([w[0] if who == "cls" else w.mean(0) for w in received])
            found = reading.attention(index, who, "joined")
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
            assert not torch.allclose(found, reading.attention(index, who), rtol=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_keys_are_the_library_s(name: str) -> None:
    tower, truth, reading = case(name).tower, truth_of(name), reading_of(name)
    for index in range(len(tower.blocks)):
        keys = reading.keys(index)
        torch.testing.assert_close(keys, truth.keys[index], atol=1e-5, rtol=1e-4)
        assert reading.keys(index) is keys
        expected = truth.by_token(truth.keys[index].mT)
        for own, mean in zip(tower.patches(case(name).call), expected, strict=True):
            found = reading.token_mean(keys.mT, own)
            torch.testing.assert_close(found, mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_projected_features_are_the_model_s_embeddings(name: str) -> None:
    tower, truth, reading = case(name).tower, truth_of(name), reading_of(name)
    for number, own in enumerate(tower.patches(case(name).call)):
        expected = truth.embeddings[number]
        if WEIGHED.get(name) == number:
            project = case(name).entry.multi_modal_projector
            with torch.no_grad():
                tokens = [project(truth.states[rows]).mean(0) for rows in truth.made_of[number]]
            assert not torch.allclose(torch.stack(tokens), expected, rtol=1e-2)
            expected = torch.stack(tokens)
        features = reading.token_features(own)
        assert features.shape == (len(own), own.shape[1] * truth.states.shape[1])
        with torch.no_grad():
            found = tower.project(features)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_windows_differ_from_whole_images() -> None:
    """The case would show nothing if windows were as large as the images or in their order."""
    found = case("qwen25vl")
    windows, whole = (found.tower.segments(index, found.call) for index in (0, 1))
    assert len(windows) > 2 * len(whole)
    assert len(set(windows)) > 2
    rows = torch.cat(found.tower.patches(found.call))
    assert not torch.equal(rows.flatten(), torch.arange(rows.numel()))


def test_windows_of_equal_size_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found, truth, calls = case("qwen25vl"), truth_of("qwen25vl"), []
    queries = found.tower.queries
    monkeypatch.setattr(found.tower, "queries", lambda *args: calls.append(1) or queries(*args))
    TowerSignals(found.tower, found.call, truth.blocks, truth.states).attention(0, "all")
    assert len(calls) == len({weights.shape[-1] for weights in truth.weights[0]})


@pytest.mark.parametrize("name", CASES)
def test_cls_rows_are_the_first_of_the_tiles(name: str) -> None:
    tower, call = case(name).tower, case(name).call
    segments = tower.segments(0, call)
    starts = [sum(segments[:index]) for index in range(len(segments))]
    rows = tower.cls_rows(call)
    assert torch.cat(rows).tolist() == (starts if tower.has_cls else [])
    if name == "llavanext":
        assert [len(own) for own in rows] == [5, 3, 4, 4, 5]


def test_an_odd_side_is_filled_with_nothing() -> None:
    name = "deepseekvl2, odd side"
    own = case(name).tower.patches(case(name).call)[0]
    assert (own < 0).any()
    features = reading_of(name).token_features(own).view(*own.shape, -1)
    assert not features[own < 0].any()


def test_who_pays_attention() -> None:
    clip, qwen = reading_of("llava15"), reading_of("qwen2vl")
    assert clip.queries("auto") == "cls"
    assert clip.queries("all") == qwen.queries("auto") == "all"
    with pytest.raises(UserError, match="no \\[CLS\\]"):
        qwen.attention(0, "cls")


def test_several_layers_of_features_are_refused() -> None:
    config = SMALL["llava15"].config()
    config.vision_feature_layer = [-2, -1]
    with pytest.raises(UserError, match="one layer"):
        LlavaTower(random_model(config).model)
    found = case("llava15")
    with pytest.raises(UserError, match="vision_feature_layer"):
        found.tower.patches({**found.call, "vision_feature_layer": -1})


def test_a_square_without_its_first_patch_is_refused() -> None:
    def change(config: Any) -> None:
        siglip(config)
        config.vision_feature_select_strategy = "default"

    with pytest.raises(UserError, match="without \\[CLS\\]"):
        LlavaTower(varied("llava15", change).model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reading_a_large_image_adds_little(dtype: torch.dtype) -> None:
    rows, width = 4096, 1280
    config = Qwen2VLVisionConfig(
        depth=1, embed_dim=width, hidden_size=64, num_heads=16, mlp_ratio=1, patch_size=4
    )
    tower = QwenTower(
        SimpleNamespace(visual=Qwen2VisionTransformerPretrainedModel(config).to(dtype))
    )
    hidden = randn(rows, width).to(dtype)
    angles = randn(rows, width // 16)
    call = {"image_grid_thw": torch.tensor([[1, 64, 64]])}
    context = {"position_embeddings": (angles.cos(), angles.sin())}
    reading = TowerSignals(tower, call, {0: (hidden, context)}, hidden)
    with PeakBytes() as meter:
        received = reading.attention(0, "all")
        reading.keys(0)
    assert abs(float(received.sum()) - 1) < 1e-3
    keys = rows * width * dtype.itemsize
    assert keys < meter.peak < 64 * 2**20, f"{meter.peak / 2**20:.1f} MB"
