"""New positions of kept tokens: gapless on each axis, or exchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.engine.renumbering import new_positions
from ivcp.engine.sample_tokens import SampleTokens, all_tokens
from ivcp.pruners.prumerge import PruMerge
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.testing import SMALL, model_of, prompts, single

BATCHES = {
    "llava15": prompts([5, (6, 6), 9], [13, (6, 6), 12], family="llava15"),
    "qwen25vl": prompts([5, (6, 8), 9], [13, (4, 6), 12, (6, 4), 7], family="qwen25vl"),
}


def answer(family: str, inputs: dict[str, Tensor], method: Any, greedy: Any) -> Any:
    model = model_of(family)
    with pruned(model, method):
        out = greedy(model, inputs)
    return out.sequences[:, -3:], torch.stack(out.logits)


def remaining(kept: list[int], start: int, rows: int, columns: int, after: int) -> SampleTokens:
    """A prompt with one image, of which some tokens remain."""
    length = start + rows * columns + after
    layout = PromptLayout(length, (ImageLayout((Grid(start, rows, columns),)),))
    (sample,) = all_tokens([layout], None, length, torch.device("cpu"))
    (image,) = sample.images
    image.index = torch.tensor(kept)
    image.ranks = start + torch.arange(len(kept))
    text = torch.arange(length)
    sample.origin = torch.cat(
        [text[:start], image.tokens[image.index], text[start + rows * columns :]]
    )
    sample.columns = torch.arange(len(sample.origin))
    return sample


def of_image(start: int, rows: int, columns: int, after: int) -> Tensor:
    """(3, 1, S) positions as Qwen2.5-VL numbers them."""
    image = torch.stack(
        [
            torch.zeros(rows, columns, dtype=torch.long),
            torch.arange(rows)[:, None].expand(-1, columns),
            torch.arange(columns).expand(rows, -1),
        ]
    ).flatten(1)
    before = torch.arange(start).expand(3, -1)
    behind = start + max(rows, columns) + torch.arange(after).expand(3, -1)
    return torch.cat([before, image + start, behind], 1)[:, None]


def test_rows_and_columns_that_nothing_shows_are_closed() -> None:
    """Of 4 x 6 tokens remain those in rows 1 and 3 and columns 0, 3 and 4."""
    kept = [6, 9, 10, 18, 21, 22]
    sample = remaining(kept, 2, 4, 6, 3)
    found = new_positions("ranks", of_image(2, 4, 6, 3), [sample], [lambda: "a"], 11)[:, 0]
    found -= found[:, :1].clone()
    assert found[0].tolist() == [0, 1, *[2] * 6, 5, 6, 7]
    assert found[1].tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 7]
    assert found[2].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7]


def test_the_end_of_the_prompt_stays() -> None:
    positions = of_image(2, 4, 6, 3)
    for mode in ("ranks", "shuffled"):
        sample = remaining([0, 7], 2, 4, 6, 3)
        found = new_positions(mode, positions, [sample], [lambda: "a"], 7)
        assert found.shape == (3, 1, 7)
        assert torch.equal(found[:, 0, -3:], positions[:, 0, -3:])


def test_shuffled_tokens_take_positions_of_each_other() -> None:
    positions, kept = of_image(2, 4, 6, 3), [0, 5, 7, 11, 20, 23]
    sample = remaining(kept, 2, 4, 6, 3)
    own = positions[:, 0, sample.origin]
    found = new_positions("shuffled", positions, [sample], [lambda: "a"], 11)[:, 0]
    assert not torch.equal(found, own)
    assert sorted(found.T.tolist()) == sorted(own.T.tolist())
    again = new_positions("shuffled", positions, [sample], [lambda: "a"], 11)[:, 0]
    assert torch.equal(found, again)


def test_all_tokens_have_their_own_ranks() -> None:
    positions = of_image(2, 4, 6, 3)
    sample = remaining(list(range(24)), 2, 4, 6, 3)
    found = new_positions("ranks", positions, [sample], [lambda: "a"], 29)
    assert torch.equal(found, positions)


def test_text_between_the_tokens_of_an_image_is_refused() -> None:
    sample = remaining([0, 1], 2, 4, 6, 3)
    with_newlines = ImageLayout((Grid(2, 4, 5, step=6),))
    sample.images[0].layout = with_newlines
    with pytest.raises(UserError, match="text stands between"):
        new_positions("ranks", of_image(2, 4, 6, 3), [sample], [lambda: "a"], 7)


@pytest.mark.parametrize("layer", [0, 3])
def test_on_one_axis_ranks_are_the_gapless_numbers(layer: int, greedy: Any) -> None:
    """Attention sees differences alone, so it does not matter from which end one counts."""
    methods = [
        RandomPruning(keep_ratio=0.4, layer=layer, renumber=mode) for mode in (True, "ranks")
    ]
    (words, gapless), (others, ranks) = (
        answer("llava15", BATCHES["llava15"].inputs, method, greedy) for method in methods
    )
    assert torch.allclose(gapless[0], ranks[0], atol=2e-5)
    if layer == 0:  # or decoding would count differently in the layers before it
        assert torch.equal(words, others)
        assert torch.allclose(gapless, ranks, atol=2e-5)


@pytest.mark.parametrize("mode", ["ranks", "shuffled"])
@pytest.mark.parametrize("family", list(BATCHES))
def test_a_batch_is_what_single_prompts_are(family: str, mode: Any, greedy: Any) -> None:
    batch, method = BATCHES[family], RandomPruning(keep_ratio=0.4, layer=2, renumber=mode)
    own = answer(family, batch.inputs, RandomPruning(keep_ratio=0.4, layer=2), greedy)[1]
    together = answer(family, batch.inputs, method, greedy)[1]
    assert not torch.allclose(own, together, atol=1e-4)
    for row in range(2):
        alone = answer(family, single(batch, row), method, greedy)[1]
        assert torch.allclose(together[:, row], alone[:, 0], atol=2e-5)


def test_moments_of_a_video_that_all_stay_keep_their_distances() -> None:
    """Two moments of 2 x 2 tokens, three positions apart; one token leaves, and nothing closes."""
    layout = PromptLayout(13, (ImageLayout((Grid(2, 2, 2, "frame"), Grid(6, 2, 2, "frame"))),))
    (sample,) = all_tokens([layout], None, 13, torch.device("cpu"))
    (image,) = sample.images
    image.index, image.ranks = torch.tensor([0, 1, 2, 4, 5, 6, 7]), torch.arange(2, 9)
    sample.origin = torch.cat([torch.arange(2), image.tokens[image.index], torch.arange(10, 13)])
    sample.columns = torch.arange(12)
    cells = torch.arange(2)
    video = torch.stack(
        [
            torch.tensor([0, 3]).repeat_interleave(4),
            cells.repeat_interleave(2).repeat(2),
            cells.repeat(4),
        ]
    )
    for text in (6, 4):  # behind the last moment, or as the library lets it begin
        before, behind = torch.arange(2).expand(3, -1), text + torch.arange(3).expand(3, -1)
        positions = torch.cat([before, 2 + video, behind], 1)[:, None]
        found = new_positions("ranks", positions, [sample], [lambda: "a"], 12)
        assert torch.equal(found[:, 0], positions[:, 0, sample.origin])


def test_merged_tokens_keep_the_order_of_their_positions() -> None:
    sample = remaining([1, 5, 3], 2, 2, 3, 2)  # the last one was merged, and stands behind others
    found = new_positions("ranks", torch.arange(10).view(1, 1, 10), [sample], [lambda: "a"], 7)
    assert found[0, 0].tolist() == [3, 4, 5, 7, 6, 8, 9]


@pytest.mark.parametrize("mode", ["ranks", "shuffled"])
@pytest.mark.parametrize("family", ["llava15", "qwen25vl", "gemma3"])
@pytest.mark.parametrize(
    "method",
    [SparseVLM(keep_ratio=0.4, layers=(1, 3)), PruMerge(keep_ratio=0.4)],
    ids=lambda method: type(method).__name__,
)
def test_merging_and_several_stages_do_not_depend_on_the_batch(
    method: Any, family: str, mode: Any, greedy: Any
) -> None:
    a, b, c, _ = SMALL[family].images
    batch = prompts([5, a, 7], [3, b, 12, c, 4], family=family)
    method = replace(method, renumber=mode)
    together = answer(family, batch.inputs, method, greedy)[1]
    for row in range(2):
        alone = answer(family, single(batch, row), method, greedy)[1]
        assert torch.allclose(together[:, row], alone[:, 0], atol=1e-4)


@pytest.mark.parametrize("family", list(BATCHES))
def test_positions_of_all_tokens_can_be_shuffled(family: str, greedy: Any) -> None:
    inputs = single(BATCHES[family], 0)
    whole, ranks, shuffled = (
        answer(family, inputs, RandomPruning(keep_ratio=1.0, layer=2, renumber=mode), greedy)[1]
        for mode in (False, "ranks", "shuffled")
    )
    assert torch.equal(whole, ranks)
    assert not torch.allclose(whole, shuffled, atol=1e-4)


def test_a_later_turn_is_refused() -> None:
    model, batch = model_of("qwen25vl"), BATCHES["qwen25vl"]
    cache, inputs = DynamicCache(), single(batch, 0)
    method = RandomPruning(keep_ratio=0.4, layer=2, renumber="ranks")
    with torch.no_grad(), pruned(model, method):
        model(**inputs, past_key_values=cache)
        with pytest.raises(UserError, match="begin with an empty cache"):
            model(**{**inputs, "attention_mask": None}, past_key_values=cache)


def test_another_word_is_refused() -> None:
    with pytest.raises(UserError, match="renumber must be"):
        RandomPruning(keep_ratio=0.4, renumber="rank")  # type: ignore[arg-type]
