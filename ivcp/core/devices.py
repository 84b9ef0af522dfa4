"""Moving small host tensors to where the model runs."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on `device`, without waiting for what the device still has to do.

    A tensor that is there already is returned as it is.
    """
    return tensor.to(device, non_blocking=True)
