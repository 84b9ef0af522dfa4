"""The original annotation files: pickles that Python 2 wrote, boxes in a second file."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from test_mdetr import OBJECTS, PHOTOS, expected, photo_name

from ivcp.core.errors import UserError
from ivcp.datasets.unc import read_unc


def opcodes(value: Any) -> bytes:
    """A value as Python 2 pickles it in protocol 2: its texts are bytes."""
    if isinstance(value, dict):
        items = b"".join(opcodes(key) + opcodes(one) for key, one in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, str):
        content = value.encode("latin1")
        return b"U" + bytes([len(content)]) + content
    return b"J" + struct.pack("<i", value)


def python2(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


def refs(split: str = "testA") -> list[dict[str, Any]]:
    found, count = [], 500
    for reference, (photo, number, _, texts) in enumerate(OBJECTS):
        sentences = []
        for text in texts:
            sentences.append(
                {"tokens": text.split(), "raw": text.upper(), "sent_id": count, "sent": text}
            )
            count += 1
        found.append(
            {
                "sent_ids": [one["sent_id"] for one in sentences], "ann_id": number,
                "file_name": photo_name(photo).replace(".jpg", f"_{reference}.jpg"),
                "ref_id": reference, "category_id": 1, "image_id": photo, "split": split,
                "sentences": sentences,
            }
        )  # fmt: skip
    return found


def instances() -> dict[str, Any]:
    return {
        "info": {}, "licenses": [], "categories": [],
        "images": [
            {"file_name": photo_name(number), "width": width, "height": height, "id": number}
            for number, (width, height) in PHOTOS.items()
        ],
        "annotations": [
            {"segmentation": [[1, 2, 3, 4]], "bbox": box, "id": number, "image_id": photo}
            for photo, number, box, _ in reversed(OBJECTS)
        ],
    }  # fmt: skip


def write_unc(folder: Path, scheme: str = "unc", split: str = "testA") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    others = [{**one, "split": "train"} for one in refs()]
    path = folder / f"refs({scheme}).p"
    path.write_bytes(python2(others[:2] + refs(split) + others[2:]))
    (folder / "instances.json").write_text(json.dumps(instances()))
    return path


def test_the_fixture_is_what_python_2_writes(tmp_path) -> None:
    with pytest.raises(UnicodeDecodeError):
        pickle.loads(python2(refs()))
    assert pickle.loads(python2(refs()), encoding="latin1") == refs()


def test_every_sentence_of_the_split_is_an_expression_with_its_objects_box(tmp_path) -> None:
    entries = read_unc(write_unc(tmp_path), "testA")
    assert [(one.text, one.box, one.size, one.coco_id) for one in entries] == expected()
    assert [one.id for one in entries] == [str(500 + number) for number in range(7)]
    assert {one.image for one in entries} == set(map(photo_name, PHOTOS))


class Harmful:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused(protocol, tmp_path) -> None:
    path, target = write_unc(tmp_path), tmp_path / "harm"
    content = pickle.dumps([Harmful(target)], protocol)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"plain lists, texts and numbers, but it names "):
        read_unc(path, "testA")
    assert not target.exists()
    pickle.loads(content)
    assert target.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", python2(refs())[:-9], b"\x80\x02h\x07."])
def test_a_damaged_pickle_is_refused(content, tmp_path) -> None:
    path = write_unc(tmp_path)
    path.write_bytes(content)
    with pytest.raises(UserError, match="to be a pickle of plain lists"):
        read_unc(path, "testA")


def test_what_is_missing_is_told(tmp_path) -> None:
    path = write_unc(tmp_path)
    with pytest.raises(UserError, match=r"no expression of this split; check dataset\.split"):
        read_unc(path, "testB")
    path.write_bytes(python2({"refs": refs()}))
    with pytest.raises(UserError, match=r"a list of references in .*; got a dict"):
        read_unc(path, "testA")
    path.write_bytes(python2([{"split": "testA", "ann_id": 3}]))
    with pytest.raises(UserError, match="image_id, file_name, sentences are missing"):
        read_unc(path, "testA")
    write_unc(tmp_path)
    (tmp_path / "instances.json").write_text(json.dumps({**instances(), "annotations": []}))
    with pytest.raises(UserError, match=r"entry 2 of .* annotation 4016 of image 581857, which"):
        read_unc(path, "testA")
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(UserError, match=r"instances\.json is no JSON"):
        read_unc(path, "testA")
    (tmp_path / "instances.json").unlink()
    with pytest.raises(UserError, match=r"Expected .*instances\.json beside refs\(unc\)\.p"):
        read_unc(path, "testA")
