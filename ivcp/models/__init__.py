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
    """Families by model type; a family of another package replaces this package's.

    Raises:
        UserError: An entry point names no family.
    """
    families: dict[str, type[ModelFamily]] = {}
    for module in pkgutil.iter_modules(__path__):
        for _, member in inspect.getmembers(importlib.import_module(f"{__name__}.{module.name}")):
            if _is_family(member):
                families.update(dict.fromkeys(member.model_types, member))
    for member in plugged(FAMILIES, ModelFamily).values():
        families.update(dict.fromkeys(member.model_types, member))
    return families


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
    """The Hugging Face model of a known family: the module itself, or a module inside it.

    Raises:
        UserError: There is none, or there are several.
    """
    from transformers import PreTrainedModel

    families = known_families()
    models: list[nn.Module] = []
    for inner in module.modules():  # outer modules come before those inside them
        is_known = isinstance(inner, PreTrainedModel) and model_type(inner) in families
        if is_known and not any(inner in outer.modules() for outer in models):
            models.append(inner)
    if not models:
        raise _unknown(module)
    if len(models) > 1:
        raise UserError(
            f"{type(module).__name__} holds {len(models)} models that could be pruned: pass one."
        )
    return models[0]


def _unknown(module: Any) -> UserError:
    return UserError(
        f"pruned() supports models of type {', '.join(sorted(known_families()))}; got "
        f"{model_type(module)!r}."
    )


def find_family(model: nn.Module) -> ModelFamily:
    """The family of a model, by its `config.model_type`.

    Raises:
        UserError: No family has this type.
    """
    family = known_families().get(model_type(model))
    if family is None:
        raise _unknown(model)
    return family()
