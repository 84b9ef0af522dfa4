"""VisPruner and FasterVLM keep what the releases keep, and what is defined where those stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from given import given_view
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_golden import cases, read
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.pruners import vispruner
from ivcp.pruners.vispruner import VisPruner

CONF = Path(__file__).parents[2] / "conf" / "pruner"
ONE_VIEW = [folder for folder in cases("vispruner") if "anyres" not in folder.name]
named = {"ids": lambda folder: folder.name}


def kept(pruner: Any, attention: Tensor, features: Tensor, *grids: tuple[int, int]) -> list[int]:
    view = given_view(*grids, tower_attention=attention, tower_features=features)
    return pruner.select(view, 0).keep.tolist()


@pytest.mark.parametrize("folder", ONE_VIEW, **named)
def test_equals_the_release(folder: Path) -> None:
    case, golden = read(folder)
    attention = golden["cls_attention"][0].mean(0)
    view = given_view(
        tuple(case["grid"]), tower_attention=attention, tower_features=golden["image_features"][0]
    )
    pruner = VisPruner(
        keep_ratio=case["visual_token_num"] / case["N"], important_ratio=case["important_ratio"]
    )
    found = pruner.select(view, 0)
    mask = golden["index_mask"][0]
    assert torch.equal(found.keep, mask.nonzero()[:, 0])
    important = found.keep[found.reasons["important"]]
    assert torch.equal(important, golden["important_indices"][0].sort().values)


@pytest.mark.parametrize("number", range(5))
def test_each_view_of_an_image_of_tiles_equals_the_release(number: int) -> None:
    (folder,) = (folder for folder in cases("vispruner") if "anyres" in folder.name)
    case, golden = read(folder)
    pruner = VisPruner(keep_ratio=case["visual_token_num_per_view"] / case["N"])
    attention = golden["cls_attention"][number].mean(0)
    found = kept(pruner, attention, golden["image_features"][number], (6, 6))
    assert found == golden["index_masks"][number].nonzero()[:, 0].tolist()


@pytest.mark.parametrize("folder", cases("fastervlm"), **named)
def test_the_preset_keeps_what_fastervlm_keeps(folder: Path) -> None:
    case, golden = read(folder)
    config = OmegaConf.load(CONF / "fastervlm.yaml")
    config.keep_ratio = case["visual_token_num"] / case["N"]
    for number in range(case["B"]):
        attention = golden["cls_attention_rows"][number, :, 1:].mean(0)
        torch.testing.assert_close(attention, golden["scores"][number], rtol=1e-5, atol=0)
        features = golden["image_features"][number]
        found = kept(instantiate(config), attention, features, tuple(case["grid"]))
        assert found == golden["kept_indices"][number].tolist()


def plain(attention: Tensor, features: Tensor, target: int, share: float) -> list[int]:
    """The method with lists and loops."""
    scores = attention.tolist()
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    important = int(target * share)
    kept, rest = order[:important], order[important:]
    unit = (features / features.norm(dim=-1, keepdim=True)).double()
    while len(rest) > target - important and important < target:
        even, odd = rest[0::2], rest[1::2]
        closest = {token: max(float(unit[token] @ unit[other]) for other in odd) for token in even}
        even.sort(key=lambda token: -closest[token])
        rest = even[min(8, len(rest) - target + important, len(even)) :] + odd
    return sorted(kept + rest if important < target else kept)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("grids", [[(5, 7)], [(3, 4), (6, 5), (2, 2)]], ids=["one", "tiles"])
@pytest.mark.parametrize("held", [vispruner.HELD, 400], ids=["held", "partly"])
def test_odd_lists_and_small_budgets(
    share: float, grids: list[tuple[int, int]], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below `HELD` similarities are looked up, above they are computed; 400 is crossed midway."""
    monkeypatch.setattr(vispruner, "HELD", held)
    count = sum(rows * columns for rows, columns in grids)
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        attention = torch.rand(count, generator=random)
        features = torch.randn(count, 16, generator=random)
        for target in (1, 2, 3, 8, 15, 20, count - 1):
            pruner = VisPruner(keep_ratio=target / count, important_ratio=share)
            found = kept(pruner, attention, features, *grids)
            assert len(found) == target
            assert found == plain(attention, features, target, share)


def test_a_share_beyond_the_budget_is_refused() -> None:
    with pytest.raises(UserError, match=r"^important_ratio must lie in \[0, 1\]; got 1.5\.$"):
        VisPruner(important_ratio=1.5)
