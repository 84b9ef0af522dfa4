"""Families found by what they have to load, and families of models that are loaded already."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ivcp.core.errors import UserError, did_you_mean
from ivcp.core.family import ModelFamily
from ivcp.models import checkpoint, find_family, known_families
from ivcp.models.hub import HubFamily
from ivcp.models.processor import Processor
from ivcp.models.qwen25vl import Qwen25VL

PROBED = 64  # values of each parameter that tell weights apart


def family_of(path: str | None, **settings: Any) -> ModelFamily:
    """The family that loads a checkpoint, by the model type in its configuration.

    Args:
        path: Folder or hub id; None is the packaged model.
        settings: Fields of the family, such as `dtype` or `max_pixels`.

    Raises:
        UserError: There is no configuration, or no family for its type.
    """
    if path is None:
        return made(Qwen25VL, path=None, **settings)
    families = known_families()
    kind = checkpoint.stored_type(checkpoint.find_source(path, "ivcp.load"))
    if kind not in families:
        raise UserError(
            f"ivcp.load supports models of type {', '.join(sorted(families))}; {path!r} is of type "
            f"{kind!r}."
        )
    return made(families[kind], path=path, **settings)


def made(kind: Any, **settings: Any) -> ModelFamily:
    """A family with its settings.

    Raises:
        UserError: It has no such setting, or a value cannot be used.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known, f"; it has {', '.join(known)}.")
            raise UserError(f"{kind.__name__} has no setting {name!r}{hint}")
    family: ModelFamily = kind(**settings)
    return family


def holding(model: nn.Module, processor: Processor | None = None) -> ModelFamily:
    """The family of a model that is loaded already; it gives that model and keeps its weights.

    Args:
        model: A Hugging Face model of a known family, in evaluation mode.
        processor: As `ivcp.load` gives it; None makes it from the model's own folder or hub id.

    Raises:
        UserError: The model is in training mode, or there is no processor for it.
    """
    if model.training:
        raise UserError("The model is in training mode: call model.eval() first.")
    family = find_family(model) if processor is None else getattr(processor, "family", None)
    if not isinstance(family, HubFamily):
        raise UserError("processor must be what ivcp.load gave together with the model.")
    config: Any = model.config
    kind: Any = type(family)
    settings = {field.name: getattr(family, field.name) for field in dataclasses.fields(family)}
    if processor is None:
        settings["path"] = path = config._name_or_path or None
        if path is None:
            raise UserError("The model names no folder or hub id: pass processor=, too.")
        with checkpoint.explained(path):
            processor = kind(**settings).processor()
    settings["dtype"] = str(model.dtype).removeprefix("torch.")
    settings["attention"] = config._attn_implementation

    class Loaded(kind):  # type: ignore[misc]
        __module__, __qualname__ = kind.__module__, kind.__qualname__  # what a record names

        def load(self, gpus: Sequence[int] | None = None) -> tuple[nn.Module, Any]:
            return model, processor

        def release(self, model: nn.Module) -> None:
            pass  # its owner goes on with it

        def identity(self) -> str:
            return weights_digest(model)

    return Loaded(**settings)


@torch.no_grad()
def weights_digest(model: nn.Module) -> str:
    """A digest of names, shapes and some values of all parameters."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        some = parameter.flatten()[:: max(1, parameter.numel() // PROBED)].float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()
