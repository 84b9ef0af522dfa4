"""One hook on a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn

from ivcp.core.errors import UserError

Args: TypeAlias = tuple[Any, ...]
Kwargs: TypeAlias = dict[str, Any]
Hooked: TypeAlias = Callable[..., Any]
Idle: TypeAlias = Callable[[Args, Kwargs], bool]

PASS = "ivcp_pass"
"""Keyword argument by which a forward pass travels through the language model's layers."""


class Hook:
    """One hook; it runs uncompiled between compiled modules, and refuses to be copied.

    Args:
        call: What it does.
        idle: Whether it has nothing to do in a call with such arguments, or None if it always has;
            this is compiled, so that compiled decoding is one graph.
    """

    def __init__(self, call: Callable[..., Any], idle: Idle | None) -> None:
        self.call, self.idle = torch.compiler.disable(call), idle  # type: ignore[no-untyped-call]

    def __call__(self, module: nn.Module, args: Args, kwargs: Any = None, *output: Any) -> Any:
        if kwargs is None or (self.idle is not None and self.idle(args, kwargs)):
            return None
        return self.call(module, args, kwargs, *output)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # the copy of a model would have hooks that write into this session
        raise UserError(
            "A model cannot be copied or saved whole inside pruned(): do it outside of the block."
        )


def has_no_pass(_: Args, kwargs: Kwargs) -> bool:
    """Whether no forward pass of a session travels with the arguments."""
    return PASS not in kwargs
