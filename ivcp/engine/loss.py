"""`labels` and `logits_to_keep`, which count prompt tokens, adapted to the remaining tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.engine.prefill import Prefill

IGNORED = -100


def remaining_labels(labels: Tensor, prefill: Prefill | None) -> Tensor:
    """The labels of the remaining tokens, -100 at padding.

    Args:
        labels: (B, S) labels of the tokens that entered.
        prefill: The forward pass, or None if nothing was pruned.
    """
    if prefill is None or prefill.source is None:
        return labels
    source = prefill.source.to(labels.device)
    remaining = labels.gather(1, source)
    real = prefill.inputs.real
    if real is None:
        return remaining
    real = real.to(labels.device)
    predicted = real.clone()
    predicted[:, 1:] &= real[:, :-1]  # padding predicts no token, so a row's first has no loss
    return remaining.masked_fill(~predicted, IGNORED)


def with_loss(
    model: Any, output: Any, labels: Tensor, kwargs: dict[str, Any], prefill: Prefill | None
) -> Any:
    """The model's output with the loss of the remaining tokens, by the model's loss function."""
    logits = output[0] if isinstance(output, tuple) else output.logits
    extra = {name: kwargs[name] for name in ("num_items_in_batch",) if name in kwargs}
    loss = model.loss_function(
        logits=logits,
        labels=remaining_labels(labels, prefill),
        vocab_size=logits.shape[-1],
        **extra,
    )
    if isinstance(output, tuple):
        return loss, *output
    return type(output)(**{"loss": loss, **output})


def check_kept_logits(kept: int | Tensor, prefill: Prefill) -> None:
    """Refuse `logits_to_keep` where it would count dropped tokens.

    1 is always allowed: where an image ends the prompt, it means the last remaining token.

    Raises:
        UserError: It counts further back than the last visual token, or holds indices.
    """
    if prefill.source is None:
        return
    if isinstance(kept, torch.Tensor) or kept > max(1, prefill.tail):
        raise UserError(
            "logits_to_keep counts the tokens of the whole prompt, of which some were dropped: "
            f"give a number up to {max(1, prefill.tail)}, or take all logits, whose rows "
            "session.remaining names."
        )


def vocabulary_head(model: nn.Module) -> bool:
    """Whether a model computes logits and a loss."""
    return hasattr(model, "lm_head") and hasattr(model, "loss_function")
