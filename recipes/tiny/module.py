"""The training step: next-token loss plus dense, pointer, box and count heads.

The heads only shape the representations and are thrown away; the saved model is a plain
`transformers` model. The README beside this file says why they are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ivcp.datasets.scenes import COLORS, SHAPES, SIZES


class TrainingHeads(nn.Module):
    """Auxiliary heads on intermediate hidden states and the sum of all losses.

    Attributes:
        dense_layer: Image tokens are read after this many decoder layers.
        pointer_layer: Query and image tokens are compared after this many decoder layers.
        box_layer: Box and count are read from the query after this many decoder layers.
    """

    def __init__(
        self, hidden: int, *, dense_layer: int = 3, pointer_layer: int = 4, box_layer: int = 6
    ) -> None:
        super().__init__()
        self.dense_layer, self.pointer_layer, self.box_layer = dense_layer, pointer_layer, box_layer
        self.sizes = [1, len(COLORS), len(SHAPES), len(SIZES), 4]
        self.dense_norm, self.dense = nn.LayerNorm(hidden), nn.Linear(hidden, sum(self.sizes))
        self.query_norm, self.query = nn.LayerNorm(hidden), nn.Linear(hidden, hidden)
        self.key_norm, self.key = nn.LayerNorm(hidden), nn.Linear(hidden, hidden)
        self.box = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 4)
        )
        self.count = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 9))

    def forward(self, states: tuple[Tensor, ...], batch: dict[str, Tensor], image: Tensor):
        """Losses by name.

        Args:
            states: Hidden states before layer 0, 1, ... each (B, N, C).
            batch: A collated batch.
            image: (B, V) indices of the visual tokens.
        """

        def gather(layer: int, index: Tensor) -> Tensor:
            return states[layer].gather(1, index[..., None].expand(-1, -1, states[layer].shape[-1]))

        dense = batch["dense"]
        read = self.dense(self.dense_norm(gather(self.dense_layer, image))).split(self.sizes, -1)
        inside = dense[..., 0] > 0
        losses = {
            "foreground": functional.binary_cross_entropy_with_logits(
                read[0][..., 0], dense[..., 0]
            ),
            "color": functional.cross_entropy(read[1][inside], dense[..., 1][inside].long()),
            "shape": functional.cross_entropy(read[2][inside], dense[..., 2][inside].long()),
            "size": functional.cross_entropy(read[3][inside], dense[..., 3][inside].long()),
            "dense_box": 5 * functional.l1_loss(read[4][inside], dense[..., 4:][inside]),
        }
        query = self.query(self.query_norm(gather(self.pointer_layer, batch["last"])))
        key = self.key(self.key_norm(gather(self.pointer_layer, image)))
        logits = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5  # (B, Q, V)
        target = batch["pointer"]
        visible = target.sum(-1) > 0
        target = target[visible] / target[visible].sum(-1, keepdim=True)
        losses["pointer"] = functional.cross_entropy(logits[visible], target)
        last = gather(self.box_layer, batch["last"])
        grounded = ~batch["boxes"][..., 0].isnan()
        boxes = self.box(last[grounded])
        losses["box"] = 5 * functional.l1_loss(boxes, batch["boxes"][grounded])
        losses["count"] = functional.cross_entropy(
            self.count(last[~grounded]), batch["counts"][~grounded].clamp_max(8)
        )
        return losses


def language_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    numbers: Tensor,
    value_of: Tensor,
    sigma: float,
) -> Tensor:
    """Cross entropy in which a coordinate token's target is a narrow Gaussian over numbers.

    Args:
        logits: (M, vocabulary).
        labels: (M,) target token ids.
        weights: (M,) weight of each token.
        numbers: (K,) token id of each number that a coordinate can be, in order.
        value_of: (vocabulary,) which of them a token spells, -1 for other tokens.
        sigma: Width of the Gaussian in steps of these numbers; 0 gives the plain loss.
    """
    log_probabilities = logits.float().log_softmax(-1)
    value = value_of[labels]
    plain = -log_probabilities.gather(1, labels[:, None])[:, 0]
    soft = value >= 0
    if sigma == 0 or not soft.any():
        return (weights * plain).sum() / weights.sum()
    distance = torch.arange(len(numbers), device=logits.device) - value[soft, None]
    weight = torch.softmax(-(distance**2) / (2 * sigma**2), -1)
    plain = plain.masked_scatter(soft, -(weight * log_probabilities[soft][:, numbers]).sum(-1))
    return (weights * plain).sum() / weights.sum()
