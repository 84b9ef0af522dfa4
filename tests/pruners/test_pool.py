"""Average pooling of the grid, compared with a plain restatement and with a shorter prompt."""

from __future__ import annotations

import pytest
import torch
from given import given_view

from ivcp import pruned
from ivcp.core.selection import budget
from ivcp.models import find_family
from ivcp.pruners.pool import AveragePool
from ivcp.testing import batch_of, model_of, single

GRIDS = {
    "square": [(8, 8)],
    "wide": [(5, 13)],
    "row": [(1, 9)],
    "column": [(9, 1)],
    "tiles and thumbnail": [(6, 6), (6, 6), (2, 3)],
    "frames": [(3, 4)] * 5,
}


def restated(
    grids: list[tuple[int, int]], target: int, hidden: list[list[float]]
) -> tuple[list[int], list[list[float]]]:
    """Middle tokens and means of all cells, cell by cell."""
    total = sum(rows * columns for rows, columns in grids)
    keep, means, start, spent = [], [], 0, 0
    for rows, columns in grids:
        share = target * (start + rows * columns) // total - spent
        spent += share
        bands = min(
            rows, share, max(1, -(-share // columns), round((share * rows / columns) ** 0.5))
        )
        cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in range(rows if share else 0):
            band = row * bands // rows
            here = sum(cell * bands // share == band for cell in range(share))
            for column in range(columns):
                cells.setdefault((band, column * here // columns), []).append((row, column))
        assert len(cells) == share
        for _, members in sorted(cells.items()):
            lines, files = ({place[axis] for place in members} for axis in (0, 1))
            assert len(members) == len(lines) * len(files), "a cell is a rectangle"
            row, column = sorted(lines)[(len(lines) - 1) // 2], sorted(files)[(len(files) - 1) // 2]
            keep.append(start + row * columns + column)
            states = [hidden[start + r * columns + c] for r, c in members]
            means.append([sum(channel) / len(states) for channel in zip(*states, strict=True)])
        start += rows * columns
    return keep, means


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.25, 0.3, 0.6, 0.85])
def test_it_is_the_mean_of_each_cell(name: str, ratio: float) -> None:
    total = sum(rows * columns for rows, columns in GRIDS[name])
    hidden = torch.randn(total, 6, generator=torch.Generator().manual_seed(total))
    selection = AveragePool(keep_ratio=ratio).select(given_view(*GRIDS[name], hidden=hidden), 0)
    target = budget(ratio, total)
    keep, means = restated(GRIDS[name], target, hidden.tolist())
    assert selection.keep.tolist() == keep
    assert len(keep) == target
    torch.testing.assert_close(selection.states, torch.tensor(means), atol=1e-6, rtol=0)
    assert selection.reasons["merged"].all()
    middles = AveragePool(keep_ratio=ratio, mean=False).select(given_view(*GRIDS[name]), 0)
    assert middles.keep.tolist() == keep
    assert middles.states is None


def test_a_quarter_of_a_square_is_cells_of_two_by_two() -> None:
    hidden = torch.arange(64.0)[:, None]
    selection = AveragePool(keep_ratio=0.25).select(given_view((8, 8), hidden=hidden), 0)
    pooled = torch.nn.functional.avg_pool2d(hidden.view(1, 8, 8), 2)
    assert torch.equal(selection.states.view(1, 4, 4), pooled)
    assert selection.keep.tolist() == [
        16 * row + 2 * column for row in range(4) for column in range(4)
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_means_are_rounded_once(dtype: torch.dtype) -> None:
    hidden = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    selection = AveragePool(keep_ratio=0.25).select(given_view((8, 8), hidden=hidden), 0)
    cells = hidden.float().view(4, 2, 4, 2, 16).transpose(1, 2).flatten(2, 3)
    assert torch.equal(selection.states, cells.mean(2).to(dtype).view(16, 16))


@pytest.mark.parametrize("family", ["qwen25vl", "internvl", "llavanext"])
def test_the_model_is_given_the_means_alone(family: str) -> None:
    """Pooled, the model is as if its prompt held the means at the places of their middles."""
    model, inputs = model_of(family), single(batch_of(family), 0)
    layers, calls = find_family(model).decoder(model).layers, []
    watch = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: calls.append((args[0], kwargs)), with_kwargs=True
        )
        for layer in layers[:2]
    ]
    with torch.no_grad():
        model(**inputs, use_cache=False)
        with pruned(model, AveragePool(keep_ratio=0.4)) as session:
            model(**inputs, use_cache=False)
        for handle in watch:
            handle.remove()
        (embeddings, plain), _, _, (found, _) = calls
        for image in session.layouts[0].images:
            grids = [(grid.rows, grid.columns) for grid in image.grids]
            states = embeddings[0, image.tokens].tolist()
            keep, means = restated(grids, budget(0.4, image.length), states)
            embeddings[0, image.tokens[keep]] = torch.tensor(means)
        rest = session.remaining[0]
        rotary = tuple(angles[..., rest, :] for angles in plain["position_embeddings"])
        expected = layers[0](embeddings[:, rest], attention_mask=None, position_embeddings=rotary)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
