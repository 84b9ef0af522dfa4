"""Values of another type than their field are named; what is meant alike is taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields


@dataclass(frozen=True, kw_only=True)
class Record:
    """One field of each kind."""

    flag: bool = False
    count: int | Literal["auto"] = 1
    share: float = 0.5
    path: str | None = None
    layers: tuple[int, ...] = ()
    words: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_fields(self, "record.")


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        *(("flag", value, "true or false") for value in ("false", "true", 0, None)),
        *(("count", value, "a whole number or auto") for value in ("1", True, 1.5, None, "all")),
        *(("share", value, "a number") for value in (True, "0.5", None)),
        *(("path", value, "a text or null") for value in (3, True, [])),
        *(("layers", value, "a list, each item a whole number") for value in (3, "3", [True])),
        *(("words", value, "a set of words") for value in ("words", [1])),
    ],
)
def test_another_type(field: str, value: Any, wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        Record(**{field: value})
    assert str(caught.value) == f"record.{field} must be {wanted}; got {value!r}."


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("count", np.int64(3), 3), ("share", np.float32(0.5), 0.5), ("share", 1, 1),
        ("path", Path("a/b"), "a/b"), ("layers", [1, 2], (1, 2)), ("words", ["a"], frozenset("a")),
    ],
)  # fmt: skip
def test_what_is_meant_alike(field: str, value: Any, stored: Any) -> None:
    found = getattr(Record(**{field: value}), field)
    assert found == stored
    assert type(found) is type(stored)
