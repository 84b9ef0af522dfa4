"""Which visual tokens belong to what the text names, measured on value states."""

from __future__ import annotations

import torch
from torch import Tensor

from ivcp.core.selection import top

SCORES = 2**21
"""Most similarities, and most numbers of keys in float32, that are held at once: 8 MB each."""


def summed_similarity(queries: Tensor, visual: Tensor, others: Tensor | None = None) -> Tensor:
    """Similarity of the visual tokens to all query tokens, a few heads and queries at a time.

    The similarity to one query is the softmax over the visual tokens of `query . visual / sqrt(D)`,
    mean over heads.

    Args:
        queries: (G, R, D) value states of the query tokens.
        visual: (G, V, D) value states of the visual tokens.
        others: (G, O, D) value states of further tokens in the softmax, or None.

    Returns:
        (V,) float32, the sum over queries.
    """
    heads, count, size = queries.shape
    width = visual.shape[1] + (0 if others is None else others.shape[1])
    total = visual.new_zeros(visual.shape[1], dtype=torch.float32)
    head_step = max(1, SCORES // (width * size))
    for head in range(0, heads, head_step):
        group = slice(head, min(heads, head + head_step))
        keys = visual[group] if others is None else torch.cat([visual[group], others[group]], 1)
        keys = keys.float().mT  # (G', D, V + O)
        row_step = max(1, SCORES // (len(keys) * width))
        for row in range(0, count, row_step):
            logits = queries[group, row : row + row_step].float() @ keys / size**0.5
            total += logits.softmax(-1).sum((0, 1))[: visual.shape[1]]
    return total / heads


def seed_count(seed_ratio: float, tokens: int) -> int:
    """Number of seeds among `tokens` visual tokens: at least 1, or 0 for a ratio of 0."""
    return max(1, round(seed_ratio * tokens)) if seed_ratio else 0


def semantic_seeds(text_similarity: Tensor, count: int, blank: Tensor | None = None) -> Tensor:
    """(count,) indices of the visual tokens most similar to the text, best first.

    Args:
        text_similarity: (V,) `summed_similarity` of the text queries.
        count: Number of seeds.
        blank: (V,) True at tokens that show padding; they become no seeds.
    """
    return top(text_similarity if blank is None else text_similarity.masked_fill(blank, -1), count)


def seed_augmented_similarity(
    text_similarity: Tensor,
    text_queries: int,
    visual: Tensor,
    seeds: Tensor,
    others: Tensor | None = None,
    blank: Tensor | None = None,
) -> Tensor:
    """(V,) float32 mean similarity to the text queries and the seeds; a seed counts as one query.

    Args:
        text_similarity: (V,) `summed_similarity` of the text queries.
        text_queries: Number of text queries.
        visual: (G, V, D) value states of the visual tokens.
        seeds: (N,) indices of the seeds.
        others: (G, O, D) value states of further tokens in the softmax, or None.
        blank: (V,) True at tokens that show padding; they score below all others.
    """
    total = text_similarity + summed_similarity(visual[:, seeds], visual, others)
    similarity = total / max(1, text_queries + len(seeds))
    return similarity if blank is None else similarity.masked_fill(blank, -1)


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
        others: (G, O, D) value states of further tokens in the softmax, or None.
        blank: (V,) True at tokens that show padding; they become no seeds and score lowest.

    Returns:
        (V,) float32 foreground scores and (seeds,) indices of the seeds, best first.
    """
    similarity = summed_similarity(text, visual, others)  # (V,)
    picked = semantic_seeds(similarity, seeds, blank)
    scores = seed_augmented_similarity(similarity, text.shape[1], visual, picked, others, blank)
    return scores, picked
