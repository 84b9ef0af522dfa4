"""Annotation files with a value of a wrong kind: one sentence, or one broken expression."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from test_mdetr import mdetr_content
from test_unc import instances, refs

from ivcp.core.errors import UserError
from ivcp.datasets.expressions import Expression
from ivcp.datasets.mdetr import read_mdetr
from ivcp.datasets.unc import read_unc

DEEP: list[Any] = []
for _ in range(400):
    DEEP = [DEEP]
ODD = [
    None, True, 7, -1.5, float("inf"), float("nan"), 10**400, "", "x", "half \ud83d", "\0", [], {},
    [1, 2, 3], [10**400] * 4, [1e308] * 4, [[1], 2, 3, 4], {"a": 1}, "9" * 5000, DEEP,
]  # fmt: skip


def spoiled(content: Any) -> Iterator[tuple[str, Any]]:
    """The content with one value replaced, and with one left out; of a list, only the first."""

    def positions(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield path
        if isinstance(value, dict):
            for name in value:
                yield from positions(value[name], (*path, name))
        elif isinstance(value, list) and value:
            yield from positions(value[0], (*path, 0))

    for path in positions(content, ()):
        for odd in ODD:
            changed = {"": deepcopy(content)}
            parent: Any = changed
            for step in ("", *path)[:-1]:
                parent = parent[step]
            parent[("", *path)[-1]] = odd
            yield f"{path}: {odd!r:.20}", changed[""]


def check(read: Callable[[], list[Expression]], what: str) -> None:
    """Check that reading gives usable expressions or one short sentence."""
    entries, sentence = [], "."
    try:
        entries = read()
    except UserError as error:
        sentence = str(error)
    assert sentence.endswith("."), what
    assert len(sentence) < 700, what
    assert all(entry.broken or (entry.text and entry.box) for entry in entries), what
    for entry in entries:
        json.dumps([entry.id, entry.text, entry.broken], ensure_ascii=False).encode()


def test_mdetr(tmp_path) -> None:
    path = tmp_path / "a.json"
    for what, content in spoiled(mdetr_content()):
        path.write_text(json.dumps(content))
        check(lambda: read_mdetr(path), what)


def test_the_original_files(tmp_path) -> None:
    path, boxes = tmp_path / "refs(unc).p", tmp_path / "instances.json"
    boxes.write_text(json.dumps(instances()))
    for what, content in spoiled(refs()):
        path.write_bytes(pickle.dumps(content))
        check(lambda: read_unc(path, "testA"), what)
    path.write_bytes(pickle.dumps(refs()))
    for what, content in spoiled(instances()):
        boxes.write_text(json.dumps(content))
        check(lambda: read_unc(path, "testA"), what)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, "\xff", "", '{"images": 5}'])
def test_what_is_no_json_is_one_sentence(content, tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=r"a\.json"):
        read_mdetr(path)


def test_random_bytes_are_no_pickle(tmp_path) -> None:
    path = tmp_path / "refs(unc).p"
    (tmp_path / "instances.json").write_text(json.dumps(instances()))
    good = pickle.dumps(refs())
    for position in range(0, len(good), 3):
        content = bytearray(good)
        content[position] ^= 0x55
        path.write_bytes(content)
        check(lambda: read_unc(path, "testA"), f"byte {position}")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(UserError, match=r"a\.json is no JSON that can be read"):
        read_mdetr(tmp_path / "a.json")
