"""Model families, one a file; the folder is the registry."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from torch import nn

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily


def find_family(model: nn.Module) -> ModelFamily:
    """The family that serves a model's `config.model_type`.

    Raises:
        UserError: No family does.
    """
    wanted = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    known: list[str] = []
    for module in pkgutil.iter_modules(__path__):
        for _, member in inspect.getmembers(importlib.import_module(f"{__name__}.{module.name}")):
            if not (inspect.isclass(member) and issubclass(member, ModelFamily)):
                continue
            if not inspect.isabstract(member):
                if wanted in member.model_types:
                    return member()
                known += member.model_types
    raise UserError(
        f"pruned() supports models of type {', '.join(sorted(set(known)))}; got {wanted!r}."
    )
