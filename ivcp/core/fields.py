"""Checks of a dataclass's values against its annotations, so that a mistake is named early."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import types
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ivcp.core.errors import UserError

MISFIT = object()
"""What `_converted` returns for a value that its annotation does not allow."""


def check_fields(record: Any, prefix: str = "") -> None:
    """Check the fields of a frozen dataclass; numpy numbers become Python's, lists become tuples.

    A path becomes a text where a text is wanted. Annotations other than numbers, texts, truth
    values, `Literal`, tuples of them and `None` are left to the class.

    Args:
        record: The dataclass instance.
        prefix: Put before the field's name in messages, such as "model.".

    Raises:
        UserError: A value has another type than its field.
    """
    hints = _hints(record.__class__)
    for field in dataclasses.fields(record):
        value, hint = getattr(record, field.name), hints.get(field.name, Any)
        converted = _converted(value, hint)
        if converted is MISFIT:
            raise UserError(f"{prefix}{field.name} must be {_described(hint)}; got {value!r}.")
        if converted is not value:
            object.__setattr__(record, field.name, converted)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except NameError:  # a name that only a type checker imports
        return {}


def _converted(value: Any, hint: Any) -> Any:
    """The value as Python's own type, or `MISFIT`."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        candidates = (_converted(value, option) for option in options)
        return next((item for item in candidates if item is not MISFIT), MISFIT)
    if origin is Literal:
        return value if value in options and not isinstance(value, bool) else MISFIT
    if origin is tuple and len(options) == 2 and options[1] is Ellipsis:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return MISFIT
        items = tuple(_converted(item, options[0]) for item in value)
        if MISFIT in items:
            return MISFIT
        return value if isinstance(value, tuple) and items == value else items
    if origin is frozenset:  # of words
        words = not isinstance(value, str) and isinstance(value, Collection)
        if not words or not all(isinstance(item, str) for item in value):
            return MISFIT
        return value if isinstance(value, frozenset) else frozenset(value)
    if hint in (int, float):
        # bool is a subclass of int, yet `layer=True` is a mistake
        wanted: Any = numbers.Integral if hint is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, wanted):
            return MISFIT
        return value if type(value) in (int, float) else hint(value)
    if hint is str and isinstance(value, PurePath):
        return str(value)
    if hint is not Any and origin is None and isinstance(hint, type):
        return value if isinstance(value, hint) else MISFIT
    return value


def _described(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(option) for option in options)
    if origin is Literal:
        return " or ".join(str(option) for option in options)
    if origin is frozenset:
        return "a set of words"
    if origin is tuple:
        return f"a list, each item {_described(options[0])}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if hint is type(None):
        return "null"
    return words.get(hint, f"a {getattr(hint, '__name__', hint)}")
