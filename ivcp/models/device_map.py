"""Where weights are put, checked before they are read."""

from __future__ import annotations

from typing import Any

import torch

from ivcp.core.errors import UserError

SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values that spread a model over several devices."""


def check_device_map(choice: str | None) -> None:
    """Refuse a device that is not here.

    Args:
        choice: `device_map` of `from_pretrained`; None leaves the place to others.

    Raises:
        UserError: It is neither a way of spreading nor a device of this machine.
    """
    if choice is None or choice in SPREADING:
        return
    try:
        device = torch.device(choice)
    except RuntimeError as error:
        raise UserError(
            f"model.device_map must be null, {', '.join(SPREADING)}, or a device such as cuda:0; "
            f"got {choice!r}."
        ) from error
    kind: Any = getattr(torch, device.type, None)  # torch.cuda, torch.cpu, torch.mps, ...
    count = kind.device_count() if hasattr(kind, "device_count") else 0
    if (device.index or 0) >= count:
        raise UserError(
            f"model.device_map={choice} names a device that is not here: torch finds {count} of "
            f"the kind {device.type}; use another, or null to leave it to the trainer."
        )
