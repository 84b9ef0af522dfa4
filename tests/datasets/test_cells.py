"""Cells that are lists, or that would make a reader slow, large or crash."""

from __future__ import annotations

import base64
import io
import time

import pytest
from PIL import Image

from ivcp.datasets.cells import decode_base64, image_id, image_sizes, read_list


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("['a', \"b'c\", 'd\\'e', 3, None]", ("a", "b'c", "d'e", "3", "None")),
        ("['a' 'b']", ("ab",)),
        ("['it''s']", ("its",)),
        ("[]", ()),
        ("['" + "Q" * 3_000_000 + "']", ("Q" * 3_000_000,)),
        ("['" + "a, " * 50_000 + "']", ("a, " * 50_000,)),
        ("['a'", None),
        ("[open]", None),
        ("{1, 2}", None),
        ("[1] + [2]", None),
    ],
    ids=lambda value: str(value)[:12],
)
def test_lists_are_read_as_python_reads_them(cell, texts) -> None:
    assert read_list(cell) == texts


@pytest.mark.parametrize(
    "cell",
    [
        "[0x" + "f" * 5000 + "]",
        "[" + "9" * 5000 + "]",
        "[" * 100_000 + "]" * 100_000,
        "[" + "-" * 9000 + "1]",
        "[" + "1," * 3_000_000 + "1]",
        "[" + "1+" * 3_000_000 + "1j]",
        "['" + "\\'" * 1_000_000 + "]",
        "['\"" + "\\\"'" * 1_000_000 + "]",
        "[1e400+1j, '\\ud83d', b'\\xff']",
    ],
    ids=lambda cell: cell[:6],
)
def test_hostile_lists_cost_no_time_and_no_memory(cell) -> None:
    start = time.perf_counter()
    read_list(cell)
    image_sizes(cell)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("text", ["abc\u00e9" * 20, "\ud83d" * 80, "A"])
def test_what_is_no_base64_is_an_error_of_reading(text) -> None:
    with pytest.raises(OSError, match="is no base64"):
        decode_base64(text)
    assert image_sizes(text) == ()


def test_equal_images_have_equal_ids() -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 7)).save(file, "PNG")
    cell = base64.b64encode(file.getvalue()).decode()
    assert image_id(cell) == image_id("".join(cell)) != image_id(cell + "A")
    assert len(image_id(cell)) == len(image_id(file.getvalue())) == 16
    assert image_id("x" * 100) != image_id("\ud83d" * 100)
