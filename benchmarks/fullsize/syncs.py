"""How often a prefill makes the CPU wait for the GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ivcp import pruned
from ivcp.core.pruner import Pruner
from ivcp.models import find_family

SYNC_WARNING = "called a synchronizing CUDA operation"


@contextmanager
def counted_syncs(layers: nn.ModuleList) -> Iterator[list[str]]:
    """Collect warnings of host-device synchronisations inside decoder layers.

    Enter it before `pruned`: what a session does before a layer then counts as inside it.
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


def synchronisations(model: Any, inputs: dict[str, Tensor], pruner: Pruner | None) -> int:
    """Host-device synchronisations inside the decoder layers during one prefill."""
    layers = find_family(model).decoder(model).layers
    with counted_syncs(layers) as messages, torch.no_grad(), ExitStack() as stack:  # type: ignore[arg-type]
        if pruner is not None:
            stack.enter_context(pruned(model, pruner))
        model(**inputs, use_cache=True, logits_to_keep=1)
    return len(messages)
