"""Hooks on the decoder layers that are there only while a forward pass needs them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class LayerHooks:
    """Hooks before all decoder layers, shared by the forward passes of all threads.

    A hook, even an idle one, costs each call of its layer time, and breaks compiled graphs. So the
    hooks are attached with the first pass that needs them and removed with the last one.

    Args:
        layers: The decoder layers.
        make: Makes the hook of a layer from its index; the hook must ignore passes that need none,
            and calls without keyword arguments, which come while another thread removes it.
    """

    def __init__(self, layers: Sequence[nn.Module], make: Callable[[int], Any]) -> None:
        self.layers = layers
        self.hooks = [make(index) for index in range(len(layers))]
        self.handles: list[RemovableHandle] = []
        # weakly: a pass that an interrupt ended is never released
        self.passes: weakref.WeakSet[Any] = weakref.WeakSet()
        self.lock = threading.Lock()
        self.opened = RemovableHandle.next_id  # hooks of the user from now on have higher ids

    def attach(self, forward_pass: object) -> None:
        """Attach the hooks for a forward pass."""
        with self.lock:
            self.passes.add(forward_pass)
            if not self.handles:
                self.handles = [*map(self._register, self.layers, self.hooks)]

    def release(self, forward_pass: object) -> None:
        """End a forward pass; the last one removes the hooks."""
        with self.lock:
            self.passes.discard(forward_pass)
            if not self.passes:
                self._remove()

    def remove(self) -> None:
        """Remove the hooks at the end of a session."""
        with self.lock:
            self._remove()

    def _remove(self) -> None:
        while self.handles:
            self.handles.pop().remove()

    def _register(self, layer: nn.Module, hook: Callable[..., Any]) -> RemovableHandle:
        """Register a hook behind those from before the session, and before all later ones."""
        later = partial(int.__le__, self.opened)
        numbers = [*takewhile(later, reversed(layer._forward_pre_hooks))]
        handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
        for number in reversed(numbers):
            layer._forward_pre_hooks.move_to_end(number)  # type: ignore[attr-defined]
        return handle
