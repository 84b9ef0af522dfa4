"""Methods and model families of other packages, found by their entry points."""

from __future__ import annotations

import dataclasses
import inspect
from importlib.metadata import entry_points
from typing import Any

from ivcp.core.errors import UserError

PRUNERS, FAMILIES = "ivcp.pruners", "ivcp.families"
"""Groups of entry points under which other packages name their classes."""


def plugged(group: str, base: Any) -> dict[str, Any]:
    """Classes of other packages by the names of their entry points.

    Args:
        group: `PRUNERS` or `FAMILIES`.
        base: The class that they must derive from.

    Raises:
        UserError: An entry point cannot be loaded, or names something else.
    """
    classes: dict[str, Any] = {}
    for point in entry_points(group=group):
        try:
            kind: Any = point.load()
        except Exception as error:
            raise UserError(
                f"The entry point {point.name!r} of {group} cannot be loaded ({error}): repair or "
                "remove its package."
            ) from error
        if not (inspect.isclass(kind) and issubclass(kind, base)) or inspect.isabstract(kind):
            raise UserError(
                f"The entry point {point.name!r} of {group} must give a {base.__name__} class; got "
                f"{kind!r}."
            )
        classes[point.name] = kind
    return classes


def default_config(kind: type, **fixed: str) -> dict[str, Any]:
    """A dataclass's configuration: its fields with their defaults, or with the fixed values."""
    config = {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **config, **fixed}
