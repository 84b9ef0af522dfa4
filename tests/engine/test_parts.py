"""Masks, attention rows and the cache layer against slow or independent computations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_invariants import build
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.pruner import Stage
from ivcp.core.selection import Selection
from ivcp.engine.kept_batch import apply_selections
from ivcp.engine.masks import attention_mask
from ivcp.engine.sample_tokens import all_tokens
from ivcp.pruners.fastv import FastV
from ivcp.testing import SMALL, prompts, single

BATCH = prompts([5, (6, 9), 7], [3, (4, 5), 12, (7, 3), 4], [9, (8, 8), 1])


@pytest.mark.parametrize("queries", [1, 3, 7])
@pytest.mark.parametrize("width", [None, 4, 7])
def test_masks_equal_a_loop(queries: int, width: int | None) -> None:
    stored, like = 7, torch.zeros(2, queries, 8)
    valid = None if width is None else torch.rand(2, width) > 0.4
    expected = torch.zeros(2, queries, stored, dtype=torch.bool)
    for row in range(2):
        for query in range(queries):
            here = stored - queries + query
            for slot in range(stored):
                counts = valid is None or slot >= valid.shape[1] or bool(valid[row, slot])
                expected[row, query, slot] = slot == here or (slot < here and counts)
    found = attention_mask("sdpa", queries, valid, stored, like)
    if found is None:
        assert valid is None
        assert queries in (1, stored), "only where the backend's own rule is causal"
    else:
        assert torch.equal(found[:, 0].expand_as(expected), expected)
    additive = attention_mask("eager", queries, valid, stored, like)
    assert torch.equal((additive == 0)[:, 0].expand_as(expected), expected)
    flash = attention_mask("flash_attention_2", queries, valid, stored, like)
    if valid is None:
        assert flash is None
    else:
        assert flash.shape == (2, stored)
        assert torch.equal(flash[:, : valid.shape[1]], valid)
        assert flash[:, valid.shape[1] :].all()


def test_attention_rows_equal_the_models_own(greedy: Any) -> None:
    """Rows of a padded batch against the attention that the eager backend returns."""
    model = SMALL["qwen25vl"].model("eager")
    with torch.no_grad():
        full = model(**BATCH.inputs, output_attentions=True).attentions[1].mean(1)  # (B, S, S)
    seen: list[tuple[int, int, torch.Tensor]] = []

    class Spy(FastV):
        def select(self, view: Any, stage: int) -> Selection:
            rows = torch.arange(len(view.queries))
            seen.append((view.batch, view.image.start, view.attention(rows)))
            return super().select(view, stage)

    with torch.no_grad(), pruned(model, Spy(keep_ratio=0.5, layer=2)) as session:
        model(**BATCH.inputs, use_cache=True)
    assert len(seen) == sum(len(spans) for spans in BATCH.spans)
    for batch, start, rows in seen:
        pad = full.shape[1] - BATCH.lengths[batch]
        layout = session.layouts[batch]
        image = next(image for image in layout.images if image.start == start)
        queries = layout.text_queries(image) + pad
        expected = full[batch, queries, image.start + pad : image.stop + pad]
        torch.testing.assert_close(rows, expected, atol=1e-6, rtol=1e-4)


def test_the_librarys_own_mask_is_right_after_the_block(qwen: Any) -> None:
    """A pruned cache serves new text outside the session, where no hook supplies masks."""
    inputs = single(BATCH, 0)
    turn = torch.randint(3, 80, (1, 6), generator=torch.Generator().manual_seed(5))
    logits = []
    with torch.no_grad():
        for inside in (True, False):
            cache = DynamicCache(config=qwen.config.text_config)
            with pruned(qwen, build("ivcp", 0.4)):
                qwen(**inputs, past_key_values=cache, use_cache=True)
                if inside:
                    logits.append(qwen(input_ids=turn, past_key_values=cache).logits)
            if not inside:
                logits.append(qwen(input_ids=turn, past_key_values=cache).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)


def test_mixed_stages_cut_what_they_declare(qwen: Any, greedy: Any) -> None:
    """A first stage that leaves caches whole, a second one that cuts all of them."""

    class Mixed(FastV):
        def stages(self) -> tuple[Stage, ...]:
            return (Stage(2, prune_earlier_kv=False), Stage(4))

        def select(self, view: Any, stage: int) -> Selection:
            keep = torch.arange(len(view.index))[stage::2]
            return Selection(keep)

    inputs = single(BATCH, 0)
    with pruned(qwen, Mixed(keep_ratio=0.5)) as session:
        out = greedy(qwen, inputs, 4)
        assert len(session.kept[0]) == 13
        text = BATCH.lengths[0] - 54
        assert [row[0] for row in session.cache_lengths] == [text + 13] * 6
        assert [row[0] for row in session.layer_tokens] == [
            text + 54, text + 54, text + 27, text + 27, text + 13, text + 13,
        ]  # fmt: skip
    assert out.sequences.shape[1] == BATCH.lengths[0] + 4


def test_books_of_an_image_with_text_between_its_frames() -> None:
    """Kept tokens stay in place, the merged one stands behind the last of its image."""
    first = ImageLayout((Grid(2, 1, 2, "frame"), Grid(6, 1, 2, "frame")))
    second = ImageLayout((Grid(9, 1, 2),))
    (row,) = all_tokens([PromptLayout(13, (first, second))], None, 13, torch.device("cpu"))
    merged = Selection(
        torch.tensor([0, 3]), merged_at=torch.tensor([2]), merged_states=torch.zeros(1, 4)
    )
    names = ["kept", "merged"]
    stay = apply_selections([row], [[merged, Selection(torch.tensor([1]))]], names).tokens
    assert stay.tolist() == [0, 1, 2, 4, 5, 7, 6, 8, 10, 11, 12]
    assert row.images[0].ranks.tolist() == [2, 5, 6]
    assert row.images[0].index.tolist() == [0, 3, 2]
    assert row.images[0].reasons.tolist() == [0, 0, 1]
    assert row.images[1].ranks.tolist() == [8]
    assert row.text.tolist() == [0, 1, 3, 4, 7, 9, 10]
    row.columns = torch.arange(len(stay))
    assert row.query_columns(torch.tensor([4, 8, 12])).tolist() == [3, 7, 10]
    assert row.kept(names)[0].tolist() == [2, 6, 7, 10]
