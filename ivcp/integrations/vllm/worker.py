"""What an evaluation adds to vLLM's workers: they tell which visual tokens were kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ivcp.core.selection import Selection
from ivcp.engine.sample_tokens import KEPT, MERGED

EXTENSION = "ivcp.integrations.vllm.worker.TellsSelections"
"""Value of `worker_extension_cls`."""


class TellsSelections:
    """Methods of a worker, called with `LLM.collective_rpc`."""

    def ivcp_tell_selections(self) -> None:
        """Note selections from here on."""
        self.get_model().selections = []  # type: ignore[attr-defined]

    def ivcp_selections(self) -> list[tuple[str, int, dict[int, str]]]:
        """Sample id, number of the image, and kept tokens with reasons; each is told once."""
        model: Any = self.get_model()  # type: ignore[attr-defined]
        noted, model.selections = model.selections, []
        return [(item.sample_id, item.number, reasons(selection)) for item, selection in noted]


def reasons(selection: Selection) -> dict[int, str]:
    """Why each token remains, by its index into the image, ascending; as a session tells.

    >>> import torch
    >>> keep, ivc = torch.tensor([1, 4]), torch.tensor([False, True])
    >>> reasons(Selection(keep, {"ivc": ivc}, merged_at=torch.tensor([2])))
    {1: 'kept', 2: 'merged', 4: 'ivc'}
    """
    keep = selection.keep.tolist()
    words = dict.fromkeys(keep, KEPT)
    for name, mask in (selection.reasons or {}).items():
        words |= {index: name for index, holds in zip(keep, mask.tolist(), strict=True) if holds}
    merged: Tensor | None = selection.merged_at
    words |= dict.fromkeys([] if merged is None else merged.tolist(), MERGED)
    return dict(sorted(words.items()))
