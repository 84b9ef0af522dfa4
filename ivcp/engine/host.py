"""Reading several tensors off a device while waiting for it once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU; those of one device travel together, as bytes."""
    found = {name: tensor for name, tensor in tensors.items() if tensor.device.type == "cpu"}
    away = [(name, tensor) for name, tensor in tensors.items() if name not in found]
    # the largest numbers first, so that each tensor's bytes begin at a multiple of its size
    away.sort(key=lambda pair: -pair[1].element_size())
    for device in {tensor.device for _, tensor in away}:
        here = [(name, tensor) for name, tensor in away if tensor.device == device]
        packed = [tensor.detach().contiguous().flatten().view(torch.uint8) for _, tensor in here]
        pieces = torch.split(torch.cat(packed).cpu(), [len(part) for part in packed])
        for (name, tensor), piece in zip(here, pieces, strict=True):
            found[name] = piece.view(tensor.dtype).view(tensor.shape)
    return found
