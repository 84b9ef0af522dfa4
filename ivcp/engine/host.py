"""Copies of several tensors to the host, for which the host waits once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU; the tensors of one device are copied together, as bytes."""
    on_host = {name: tensor for name, tensor in tensors.items() if tensor.device.type == "cpu"}
    remote = [(name, tensor) for name, tensor in tensors.items() if name not in on_host]
    # the widest numbers first: `view(dtype)` needs bytes that begin at a multiple of the width
    remote.sort(key=lambda pair: -pair[1].element_size())
    for device in {tensor.device for _, tensor in remote}:
        group = [(name, tensor) for name, tensor in remote if tensor.device == device]
        packed = [tensor.detach().contiguous().flatten().view(torch.uint8) for _, tensor in group]
        pieces = torch.split(torch.cat(packed).cpu(), [len(data) for data in packed])
        for (name, tensor), piece in zip(group, pieces, strict=True):
            on_host[name] = piece.view(tensor.dtype).view(tensor.shape)
    return on_host
