"""Model families, one a file; the folder is the registry, and entry points add to it."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import Any

from torch import nn

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.plugins import FAMILIES, plugged


@functools.cache
def known_families() -> dict[str, type[ModelFamily]]:
    """Families by model type; those of other packages come after this package's own.

    Raises:
        UserError: An entry point gives no family.
    """
    found: dict[str, type[ModelFamily]] = {}
    for module in pkgutil.iter_modules(__path__):
        for _, member in inspect.getmembers(importlib.import_module(f"{__name__}.{module.name}")):
            if _is_family(member):
                found.update(dict.fromkeys(member.model_types, member))
    for member in plugged(FAMILIES, ModelFamily).values():
        found.update(dict.fromkeys(member.model_types, member))
    return found


def _is_family(member: Any) -> bool:
    return (
        inspect.isclass(member)
        and issubclass(member, ModelFamily)
        and not inspect.isabstract(member)
    )


def model_type(model: Any) -> str:
    """`model.config.model_type`, or the name of the class where there is none."""
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def find_model(module: nn.Module) -> nn.Module:
    """The Hugging Face model of a known family that a module is, or holds.

    Raises:
        UserError: It holds none, or several.
    """
    from transformers import PreTrainedModel

    families = known_families()
    held = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    found: list[nn.Module] = []
    for part in held:
        if model_type(part) in families and not any(part in outer.modules() for outer in found):
            found.append(part)
    if not found:
        raise _unknown(module)
    if len(found) > 1:
        raise UserError(
            f"{type(module).__name__} holds {len(found)} models that could be pruned: pass one."
        )
    return found[0]


def _unknown(module: Any) -> UserError:
    return UserError(
        f"pruned() supports models of type {', '.join(sorted(known_families()))}; got "
        f"{model_type(module)!r}."
    )


def find_family(model: nn.Module) -> ModelFamily:
    """The family that serves a model's `config.model_type`.

    Raises:
        UserError: No family does.
    """
    family = known_families().get(model_type(model))
    if family is None:
        raise _unknown(model)
    return family()
