"""The pruner of a request: a method by name with its fields, checked before anything runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ivcp.core.errors import UserError, did_you_mean
from ivcp.core.pairing import check_pair
from ivcp.core.plugins import PRUNERS
from ivcp.core.pruner import Pruner
from ivcp.core.tower import tower_block
from ivcp.core.view import LAYER_SIGNALS, TOWER_BLOCK_SIGNALS, TOWER_SIGNALS, Signal
from ivcp.integrations.choices import available

KEY = "ivcp"
"""Name of the settings in `mm_processor_kwargs` of a request and in the engine's `hf_overrides`."""
SAMPLE_ID = "sample_id"
"""Beside the method's fields: of which seeds are made (`random`)."""

PRUNER: Any = Pruner  # an abstract class, which mypy lets nobody pass on

PROVIDES: frozenset[Signal] = frozenset({"positions", "hidden", "embeddings", "text_embeddings"})
"""What a method can read before the language model."""
NO_TOWER = ("llava",)
"""Model types of which vLLM does not keep the whole tower."""
FIRST_PASS: frozenset[Signal] = frozenset({"values", "keys"})
"""What it can read of the last layer of a first pass."""
OF_TEXT: frozenset[Signal] = LAYER_SIGNALS | {"text_embeddings"}
"""What depends on the prompt's text."""


def merged(default: Mapping[str, Any] | None, request: Any) -> dict[str, Any]:
    """A request's settings: its own before the engine's, whose fields go with its method alone.

    >>> merged({"pruner": "ivc", "keep_ratio": 0.5}, {"keep_ratio": 0.25})
    {'pruner': 'ivc', 'keep_ratio': 0.25}
    >>> merged({"pruner": "ivc", "offset": 3}, {"pruner": "pool"})
    {'pruner': 'pool'}
    """
    for settings in (default, request):
        if settings is not None and not isinstance(settings, Mapping):
            raise UserError(
                f'{KEY} must hold settings such as {{"pruner": "divprune", "keep_ratio": 0.5}}; '
                f"got {settings!r}."
            )
    default, request = dict(default or {}), dict(request or {})
    if request.get("pruner", default.get("pruner")) != default.get("pruner"):
        return request
    return {**default, **request}


def canonical(settings: Mapping[str, Any]) -> str:
    """The settings as text, equal for equal settings.

    Raises:
        UserError: They hold something that is no setting.
    """
    try:
        return json.dumps(settings, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{KEY} must hold numbers, words and lists; got {settings!r}.") from error


@lru_cache(maxsize=256)
def pruner_of(
    settings: str, model_type: str, layers: int, blocks: int | None = None
) -> Pruner | None:
    """The method of a request, checked; None if nothing is pruned.

    Args:
        settings: What `canonical` gave.
        model_type: `config.model_type`.
        layers: Number of decoder layers.
        blocks: Number of blocks of the vision tower; None leaves a method's own unchecked.

    Raises:
        UserError: There is no such method or field, or vLLM cannot serve it.
    """
    fields = json.loads(settings)
    fields.pop(SAMPLE_ID, None)
    if not fields:
        return None
    provides = PROVIDES if model_type in NO_TOWER else PROVIDES | TOWER_SIGNALS
    pruner = _built(fields).fitted(model_type, layers, provides)
    stages = pruner.stages()
    _check(pruner)
    for stage in stages:
        if stage.needs & TOWER_BLOCK_SIGNALS and blocks is not None:
            for layer in stage.tower_layers:
                tower_block(layer, blocks, pruner.name, "this model")
        provided = provides | (FIRST_PASS if stage.first_pass else frozenset())
        check_pair(pruner, provided, "a model in vLLM", ["full"] * layers)
    return pruner if pruner.prunes() else None


def _built(fields: Mapping[str, Any]) -> Pruner:
    """The method with its fields; a method inside of a method is built likewise."""
    values: dict[str, Any] = {
        name: _built(value) if isinstance(value, Mapping) and "pruner" in value else value
        for name, value in fields.items()
    }
    methods, name = available("pruners", PRUNER, PRUNERS), values.pop("pruner", None)
    if name not in methods:
        hint = did_you_mean(str(name), methods)
        raise UserError(
            f"{KEY} must name a pruner, one of {', '.join(methods)}; got {name!r}{hint}"
        )
    kind = methods[name]
    known = [field.name for field in dataclasses.fields(kind)]
    for field in values:
        if field not in known:
            hint = did_you_mean(field, known)
            raise UserError(f"{name} has the settings {', '.join(known)}; got {field!r}{hint}")
    if "layer" in known and not values.get("two_pass"):
        values.setdefault("layer", 0)  # the only place where vLLM can prune
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{name} cannot be made of {dict(fields)!r}: {error}.") from error


def settings_of(pruner: Pruner) -> dict[str, Any]:
    """The settings of a request that stand for a method: its name and all its fields.

    Raises:
        UserError: No name stands for its class.
    """
    kind = type(pruner)
    names = {method: name for name, method in available("pruners", PRUNER, PRUNERS).items()}
    if kind not in names:
        raise UserError(
            f"{kind.__name__} has no name by which a request could choose it: give it an entry "
            f"point of the group {PRUNERS}, and leave budget= as it is."
        )
    values = {field.name: getattr(pruner, field.name) for field in dataclasses.fields(pruner)}
    settings = {
        name: settings_of(value) if isinstance(value, Pruner) else value
        for name, value in values.items()
    }
    return {"pruner": names[kind], **settings}


def _check(pruner: Pruner) -> None:
    """Refuse what vLLM cannot serve.

    Raises:
        UserError: The method does something else than choose once before the language model.
    """
    name, layers = pruner.name, [stage.layer for stage in pruner.stages()]
    if layers not in ([], [0]):
        raise UserError(
            f"vLLM can prune before the language model only, and {name} prunes before layers "
            f"{layers}: use layer=0, or two_pass=true with ivcp."
        )
    if pruner.before_processor:
        raise UserError(f"{name} resizes images: send smaller images instead.")
    if pruner.renumbers():
        raise UserError("vLLM keeps the original positions here: leave renumber out.")
    if layers and not (pruner.fills_ratio() and pruner.decides_by_image()):
        raise UserError(
            f"{name} does not tell how many tokens of an image it will keep, which vLLM must know "
            "before: use a method with a fixed keep_ratio."
        )
