"""HoloV keeps what the release keeps, and hands on what does not fit a crop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from given import given_view
from test_golden import cases, read
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.pruners.holov import HoloV


def kept(pruner: HoloV, attention: Tensor, *grids: tuple[int, int]) -> Tensor:
    return pruner.select(given_view(*grids, tower_attention=attention), 0).keep


@pytest.mark.parametrize("folder", cases("holov"), ids=lambda folder: folder.name)
def test_equals_the_release_where_no_crop_overflows(folder: Path) -> None:
    """Where one does, the release appends zeros: its real rows are kept, and others beside them."""
    case, golden = read(folder)
    if "sequence_indices" in golden:  # the whole image, then its tiles without the padding
        grids = [(6, 6), (6, 12)]
        attention = golden["cls_attention"].mean(1).flatten()[golden["sequence_indices"]]
    else:
        grids, attention = [tuple(case["grid"])], golden["attention"]
    target = case["new_image_token_num"]
    pruner = HoloV(keep_ratio=target / len(attention), crops=case["num_patches"])
    found, released = kept(pruner, attention, *grids), golden["kept_indices"].sort().values
    sizes = [len(part) for part in attention.tensor_split(case["num_patches"])]
    lost = (golden["allocated"] - torch.tensor(sizes)).clamp_min(0).sum()
    assert len(found) == target == len(released) + lost
    assert torch.isin(released, found).all()
    for part, quota in zip(
        torch.arange(len(attention)).tensor_split(case["num_patches"]),
        golden["allocated"].tolist(),
        strict=True,
    ):
        assert torch.isin(part, found).sum() >= min(quota, len(part))


def plain(attention: Tensor, target: int, crops: int) -> list[int]:
    """The method with lists and loops: tokens are handed out one by one."""
    parts = [part.tolist() for part in torch.arange(len(attention)).tensor_split(crops)]
    scores = attention.double().tolist()
    means = [sum(scores[token] for token in part) / len(part) for part in parts]
    shares = [mean / sum(means) for mean in means]
    quotas = [int(share * target) for share in shares]
    largest = sorted(range(crops), key=lambda crop: -shares[crop])
    for crop in largest[: target - sum(quotas)]:
        quotas[crop] += 1
    counts = [min(quota, len(part)) for quota, part in zip(quotas, parts, strict=True)]
    while sum(counts) < target:
        room = [crop for crop in range(crops) if counts[crop] < len(parts[crop])]
        counts[max(room, key=lambda crop: shares[crop] / (counts[crop] + 1))] += 1
    best = [sorted(part, key=lambda token: -scores[token]) for part in parts]
    return sorted(token for crop in range(crops) for token in best[crop][: counts[crop]])


@pytest.mark.parametrize("power", [1, 3, 12], ids=["even", "uneven", "overflowing"])
@pytest.mark.parametrize("grids", [[(7, 9)], [(4, 5), (6, 6), (3, 3)]], ids=["one", "tiles"])
@pytest.mark.parametrize("crops", [1, 5, 16])
def test_equals_handing_out_one_by_one(
    power: int, grids: list[tuple[int, int]], crops: int
) -> None:
    count = sum(rows * columns for rows, columns in grids)
    for seed in range(4):
        random = torch.Generator().manual_seed(seed)
        coarse = torch.rand(8, generator=random).repeat_interleave(-(-count // 8))[:count]
        attention = (coarse + 0.2 * torch.rand(count, generator=random)) ** power
        for target in (1, 2, 7, 20, count // 2, count - 1):
            found = kept(HoloV(keep_ratio=target / count, crops=crops), attention, *grids)
            assert found.tolist() == plain(attention, target, crops)


def test_crops_are_no_more_than_tokens() -> None:
    attention = torch.tensor([0.1, 0.4, 0.2, 0.3])
    assert kept(HoloV(keep_ratio=0.5), attention, (2, 2)).tolist() == [1, 3]


def test_no_attention_at_all_keeps_as_many() -> None:
    assert len(kept(HoloV(keep_ratio=0.5), torch.zeros(36), (6, 6))) == 18


def test_no_crops_are_refused() -> None:
    with pytest.raises(UserError, match=r"^crops must be at least 1; got 0\.$"):
        HoloV(crops=0)
