"""`--model_args` of lmms-eval: the model, the pruner and the options of requests."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.plugins import FAMILIES, PRUNERS
from ivcp.core.pruner import Pruner
from ivcp.integrations.choices import available

T = TypeVar("T")

NULL = ("null", "none")
RESERVED = (*NULL, "true", "false", "nan", "inf", "infinity")
PLAIN = re.compile(r"[A-Za-z/~][\w/.~-]*")
KINDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text (in quotes, if it looks like a number)",
    tuple: "whole numbers in brackets, such as [3,7,16]",
}


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """How requests are answered.

    Attributes:
        batch_size: Requests that are answered together, at least 1.
        max_new_tokens: Longest answer in tokens where a task names none, at least 1.
    """

    batch_size: int = 1
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A field is less than 1.
        """
        for field in fields(self):
            if (value := getattr(self, field.name)) < 1:
                raise UserError(f"{field.name} must be at least 1; got {value}.")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Everything that decides an answer, beside weights and versions.

    Attributes:
        model: The family; `model=` names its module in `ivcp.models`.
        pruner: The method; `pruner=` names its module in `ivcp.pruners`.
        requests: How requests are answered.
    """

    model: ModelFamily
    pruner: Pruner
    requests: RequestOptions

    @classmethod
    def parse(cls, model_args: Mapping[str, Any]) -> Arguments:
        """Build the sections from arguments by name, as lmms-eval splits and reads them.

        A field goes by its bare name, or as `model.<field>` and `pruner.<field>`; fields that are
        not named have their class's defaults.

        Raises:
            UserError: A name or value is unknown, missing, ambiguous or given twice.
        """
        rest = dict(model_args)
        classes: dict[str, type[Any]] = {
            "model": _choose("model", rest, available("models", ModelFamily, FAMILIES)),
            "pruner": _choose("pruner", rest, available("pruners", Pruner, PRUNERS)),
            "requests": RequestOptions,
        }
        values: dict[str, dict[str, Any]] = {section: {} for section in classes}
        for name, value in rest.items():
            section, field_name = _owner(name, classes)
            if field_name in values[section]:
                raise UserError(f"The argument {name} is given twice: name it once.")
            values[section][field_name] = read(
                name, value, get_type_hints(classes[section])[field_name]
            )
        for section, kind in classes.items():
            for field in fields(kind):
                required = field.default is MISSING and field.default_factory is MISSING
                if required and field.name not in values[section]:
                    raise UserError(
                        f"{kind.__name__} needs {field.name}, which is missing; if --model_args "
                        "cannot hold it, choose another."
                    )
        return cls(**{section: kind(**values[section]) for section, kind in classes.items()})

    def __str__(self) -> str:
        """All of it, defaults too, as `--model_args` takes it."""
        sections = {field.name: getattr(self, field.name) for field in fields(self)}
        owners = Counter(field.name for section in sections.values() for field in fields(section))
        pairs = []
        for name, section in sections.items():
            if section is not self.requests:
                pairs.append(f"{name}={type(section).__module__.rpartition('.')[2]}")
            for field in fields(section):
                prefix = f"{name}." if owners[field.name] > 1 else ""
                pairs.append(f"{prefix}{field.name}={write(getattr(section, field.name))}")
        return ",".join(pairs)


def _choose(section: str, rest: dict[str, Any], choices: Mapping[str, type[T]]) -> type[T]:
    """The class that the arguments name for a section; takes the name out of them."""
    stem = rest.pop(section, None)
    if stem is None:
        raise UserError(
            f"--model_args must name a {section}: {section}= one of {', '.join(choices)}."
        )
    if stem not in choices:
        raise UserError(f"{section} must be one of {', '.join(choices)}; got {stem!r}.")
    return choices[stem]


def _owner(name: str, classes: Mapping[str, type[Any]]) -> tuple[str, str]:
    """The section and the field that an argument means."""
    prefix, _, field = name.rpartition(".")
    names = {section: [entry.name for entry in fields(kind)] for section, kind in classes.items()}
    owners = [section for section in names if prefix in ("", section) and field in names[section]]
    if not owners:
        choices = ", ".join(dict.fromkeys(sum(names.values(), ["model", "pruner"])))
        raise UserError(f"Expected the model arguments {choices}; got {name!r}.")
    if len(owners) > 1:
        choices = " or ".join(f"{section}.{field}" for section in owners)
        raise UserError(f"{name} belongs to {' and '.join(owners)}: write {choices}.")
    return owners[0], field


def read(name: str, value: Any, hint: Any) -> Any:
    """The value of an argument as its field has it.

    >>> read("layers", "[3,7]", tuple[int, ...]), read("path", "null", str | None)
    ((3, 7), None)

    Raises:
        UserError: It is of another kind, or none of the values that the field may have.
    """
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if NoneType in options and (value is None or str(value).lower() in NULL):
        return None
    literals = [kind for kind in options if get_origin(kind) is Literal]
    words = [word for literal in literals for word in get_args(literal)]
    if isinstance(value, str) and value in words:
        return value
    kinds = [kind for kind in options if kind is not NoneType and kind not in literals]
    for kind in kinds:
        with suppress(TypeError, ValueError, OverflowError, RecursionError):
            return _read(value, kind)
    wanted = " or ".join([*(KINDS[get_origin(kind) or kind] for kind in kinds), *words])
    raise UserError(f"{name} must be {wanted}; got {value!r}.")


def _read(value: Any, kind: Any) -> Any:
    """The value as one of `KINDS`; a ValueError or TypeError if it is none."""
    if get_origin(kind) is tuple:
        numbers = json.loads(value) if isinstance(value, str) else value
        return tuple(_read(number, get_args(kind)[0]) for number in numbers)
    if kind is str and isinstance(value, str):
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        return value[1:-1] if quoted else value
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and (kind is float or number.is_integer()):
            return kind(number)
    raise ValueError(value)


def write(value: Any) -> str:
    """A field's value as `--model_args` takes it.

    >>> write((3, 7)), write(None), write("a,b")
    ('[3,7]', 'null', '"a,b"')
    """
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in RESERVED
        return value if plain else f'"{value}"'
    return json.dumps(value, separators=(",", ":"))
