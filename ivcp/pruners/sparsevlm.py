"""SparseVLM: text tokens rate visual tokens at several layers; dropped tokens are recycled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ivcp.core.depths import scaled_layers
from ivcp.core.errors import UserError
from ivcp.core.pruner import StagedPruner
from ivcp.core.selection import Selection, top
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class SparseVLM(StagedPruner):
    """Let the text tokens that match the image best rate its tokens, layer after layer.

    Raters are the text tokens whose embeddings are more similar to the visual tokens than average.
    At each stage the visual tokens with the largest attention from the raters are kept. The best of
    the rest are clustered by density peaks; each cluster is merged to its mean.

    Paper: SparseVLM (arXiv 2410.04417); code of release 1.0 and of the main branch (1.5).
    Differs from the reference: a budget by ratio is added, which counts kept and merged tokens;
    tokens keep their original positions, merged tokens that of their cluster's centre (`renumber`
    gives the release's gapless numbering); ties between densities go to the first token, where the
    release adds random noise of 1e-6.

    Attributes:
        keep_ratio: Fraction of visual tokens after the last stage, in (0, 1]; for budget="ratio".
        layers: Decoder layers before which to prune, ascending, 1 .. L-1; "auto" takes 3, 7 and 16
            of 32 (release: after layers 2, 6 and 15), and the same fractions of other depths.
        prune_earlier_kv: Whether to prune the caches of earlier layers, too (release: no).
        renumber: New positions of kept tokens, as in `Renumbering` (release: true).
        budget: "ratio": stages shrink geometrically to the keep ratio; "rank": the rank of the
            raters' attention decides, as in 1.0; "table": `table` does, as in 1.5.
        table: Tokens to keep at each stage for budget="table"; merged ones are added to them.
        rank_scale: Kept tokens per unit of rank for budget="rank".
        rank_bias: Number added to that product.
        recycle: Whether dropped tokens are merged.
    """

    budget: Literal["ratio", "rank", "table"] = "ratio"
    table: tuple[int, ...] = (300, 200, 110)
    rank_scale: float = 13.5
    rank_bias: float = 0.0
    recycle: bool = True

    needs: ClassVar[frozenset[Signal]] = frozenset(
        {"embeddings", "text_embeddings", "hidden", "attention"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget == "table":
            self.check_length("table", self.table)
        if min(self.table, default=1) < 1:
            raise UserError(f"table must hold numbers of at least 1; got {list(self.table)}.")
        if self.rank_scale <= 0:
            raise UserError(f"rank_scale must be above 0; got {self.rank_scale:g}.")

    def auto_layers(self, layers: int) -> tuple[int, ...]:
        return scaled_layers((3, 7, 16), 32, layers)

    def fills_ratio(self) -> bool:
        return self.budget == "ratio"

    def select(self, view: View, stage: int) -> Selection:
        if "raters" not in view.notes:
            view.notes["raters"] = _raters(view.text_embeddings(), view.embeddings())
        raters, count = view.notes["raters"], len(view.index)
        relation = view.mean_attention(raters)  # (V,)
        kept = self._kept(view, stage, count)
        if kept >= count:
            return Selection(torch.arange(count, device=relation.device))
        order = top(relation, count)
        keep, recycled = order[:kept].sort().values, order[kept : kept + _recycled(count - kept)]
        limit = self.stage_target(view, stage) if self.budget == "ratio" else count
        if not self.recycle or kept + _clusters(count - kept) > limit:
            return Selection(keep)
        centers, states = cluster(view.hidden()[recycled], _clusters(count - kept))
        return Selection(keep, merged_at=recycled[centers], merged_states=states)

    def _kept(self, view: View, stage: int, count: int) -> int:
        """Tokens to keep at a stage, not counting merged ones."""
        if self.budget == "table":
            return min(self.table[stage], count - 1)
        if self.budget == "rank":
            ratings = view.attention(view.notes["raters"].nonzero()[:, 0])  # (R, V)
            rank = int(torch.linalg.matrix_rank(ratings))
            if rank == count:
                return count
            return max(1, min(int(rank * self.rank_scale + self.rank_bias), count - 1))
        target = self.stage_target(view, stage)
        if not self.recycle or target >= count:
            return target
        for kept in range(target - 1, 0, -1):
            if kept + _clusters(count - kept) <= target:
                return kept
        return target  # too small to merge anything


def _recycled(dropped: int) -> int:
    return int(0.3 * dropped) + 1


def _clusters(dropped: int) -> int:
    return int(_recycled(dropped) / 10) + 1


def _raters(text: Tensor, visual: Tensor) -> Tensor:
    """(T,) whether a text query gets more than average of the visual tokens' softmax over text.

    Where all get the same, as with a single text query, all of them are raters.
    """
    total = text.new_zeros(len(text), dtype=torch.float32)
    for chunk in torch.split(visual, max(1, 2**22 // max(1, len(text)))):
        total += (chunk.float() @ text.float().T).softmax(-1).sum(0)
    above = total > total.mean()
    return above | ~above.any()


def cluster(states: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Density-peak clustering (DPC-KNN) and the mean of each cluster.

    Args:
        states: (N, C) hidden states.
        clusters: Number of clusters, 1 .. N, and of the nearest neighbours that define a density.

    Returns:
        (clusters,) indices of the centres, and (clusters, C) means.
    """
    points = states.float()
    distance = torch.cdist(points, points) / points.shape[1] ** 0.5  # (N, N)
    nearest = distance.topk(clusters, largest=False).values
    density = (-(nearest**2).mean(-1)).exp()
    denser = density[None, :] > density[:, None]
    gap = distance.masked_fill(~denser, torch.inf).amin(-1)
    gap = torch.where(gap.isinf(), distance.max(), gap)
    centers = top(density * gap, clusters)
    owner = distance[:, centers].argmin(-1)
    owner[centers] = torch.arange(clusters, device=states.device)
    sums = points.new_zeros(clusters, points.shape[1]).index_add_(0, owner, points)
    sizes = points.new_zeros(clusters).index_add_(0, owner, points.new_ones(len(points)))
    return centers, (sums / (sizes[:, None] + 1e-6)).to(states.dtype)
