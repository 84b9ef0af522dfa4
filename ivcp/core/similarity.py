"""Which visual tokens the text looks for, judged by value states."""

from __future__ import annotations

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.layout import ImageLayout
from ivcp.core.selection import top


def padding(image: ImageLayout, device: torch.device) -> Tensor | None:
    """(V,) True at tokens that show padding, or None where none does."""
    return to_device(image.on_padding, device) if image.padded else None


def value_similarity(queries: Tensor, visual: Tensor, others: Tensor | None = None) -> Tensor:
    """Softmax over the visual tokens of `query . visual / sqrt(D)`, mean over heads.

    Args:
        queries: (G, R, D) value states of the querying tokens.
        visual: (G, V, D) value states of the visual tokens.
        others: (G, O, D) value states of tokens that share in the softmax, or None.

    Returns:
        (R, V) float32, each row sums to 1, or to less if there are others.
    """
    keys = visual if others is None else torch.cat([visual, others], 1)
    logits = queries.float() @ keys.float().mT / queries.shape[-1] ** 0.5  # (G, R, V + O)
    similarity: Tensor = logits.softmax(-1).mean(0)[:, : visual.shape[1]]
    return similarity


SCORES = 2**21
"""Most similarities, and most numbers of keys in float32, that are held at once: 8 MB each."""


def summed_similarity(queries: Tensor, visual: Tensor, others: Tensor | None = None) -> Tensor:
    """(V,) float32 sum of `value_similarity` over its rows, a few heads and rows at a time."""
    heads, count, size = queries.shape
    width = visual.shape[1] + (0 if others is None else others.shape[1])
    total = visual.new_zeros(visual.shape[1], dtype=torch.float32)
    some = max(1, SCORES // (width * size))
    for first in range(0, heads, some):
        group = slice(first, min(heads, first + some))
        keys = visual[group] if others is None else torch.cat([visual[group], others[group]], 1)
        keys = keys.float().mT  # (G', D, V + O)
        rows = max(1, SCORES // (len(keys) * width))
        for start in range(0, count, rows):
            logits = queries[group, start : start + rows].float() @ keys / size**0.5
            total += logits.softmax(-1).sum((0, 1))[: visual.shape[1]]
    return total / heads


def foreground_scores(
    text: Tensor,
    visual: Tensor,
    seeds: int,
    others: Tensor | None = None,
    blank: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Two-stage foreground score: the text finds seeds, text and seeds find the foreground.

    Source: IVC-Prune (arXiv 2602.03060), Algorithm 1; the release's Qwen2.5-VL code.

    Args:
        text: (G, T, D) value states of the text queries.
        visual: (G, V, D) value states of the visual tokens.
        seeds: Number of seeds; with 0 the text alone scores.
        others: (G, O, D) value states of tokens that share in the softmax, or None.
        blank: (V,) True at tokens that show padding: no seeds, and scored below all others.

    Returns:
        (V,) float32 foreground scores and (seeds,) indices of the seeds, best first.
    """
    by_text = summed_similarity(text, visual, others)  # (V,)
    picked = top(by_text if blank is None else by_text.masked_fill(blank, -1), seeds)
    by_seeds = summed_similarity(visual[:, picked], visual, others)
    scores = (by_text + by_seeds) / max(1, text.shape[1] + seeds)
    return scores if blank is None else scores.masked_fill(blank, -1), picked
