"""Vision-token pruning for large vision-language models, on unmodified `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ivcp.core.family import Anatomy
    from ivcp.core.pruner import Pruner
    from ivcp.engine.session import Session

__all__ = ["pruned"]
__version__ = "0.1.0"


@contextmanager
def pruned(model: nn.Module, pruner: Pruner, *, family: Anatomy | None = None) -> Iterator[Session]:
    """Prune visual tokens in every forward pass of `model` inside the block.

    Args:
        model: A Hugging Face model of a supported family, unmodified.
        pruner: A method, such as `ivcp.pruners.ivcp.IVCPrune(keep_ratio=0.5, layer=16)`.
        family: How to look inside the model; found by `model.config.model_type` if not given.

    Yields:
        The session, with the results of the last prefill.

    Raises:
        UserError: The model cannot serve the pruner.
    """
    from ivcp.engine.session import open_session
    from ivcp.models import find_family

    with open_session(model, family or find_family(model), pruner) as session:
        yield session
