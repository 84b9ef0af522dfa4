"""How often a forward pass makes the host wait for the GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

SYNC_WARNING = "called a synchronizing CUDA operation"


@contextmanager
def counted_syncs(layers: nn.ModuleList) -> Iterator[list[str]]:
    """Collect PyTorch's warnings of synchronisations inside decoder layers.

    Enter it before a session: what the session does before a layer then counts as inside it.
    """

    def switch(mode: str) -> Callable[..., None]:
        return lambda *_: torch.cuda.set_sync_debug_mode(mode)

    with warnings.catch_warnings(record=True) as caught, ExitStack() as stack:
        warnings.simplefilter("always")
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(switch("warn")).remove)
            stack.callback(layer.register_forward_hook(switch("default"), always_call=True).remove)
        messages: list[str] = []
        yield messages
        messages += [text for text in (str(w.message) for w in caught) if SYNC_WARNING in text]
