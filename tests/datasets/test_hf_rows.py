"""The hub's tables: rows are objects, photos are cells; read with the real library."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_mdetr import OBJECTS, PHOTOS, expected, photo_name, write_photos

from ivcp.core.errors import UserError
from ivcp.datasets.hf_rows import read_hub, refuse_mixed, usual_source

library = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    library.disable_progress_bars()


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", PHOTOS[number], (number % 256, 90, 20)).save(file, "PNG")
    return file.getvalue()


def table() -> Any:
    """The columns of lmms-lab's sets; two objects share a photo, each has its row."""
    rows = [
        {
            "question_id": str(number),
            "image": {"bytes": encoded(photo), "path": None},
            "question": "Please carefully observe the area circled in the image.",
            "answer": texts,
            "segmentation": [1.0, 2.0, 3.0],
            "bbox": [float(value) for value in box],
            "iscrowd": 0,
            "file_name": photo_name(photo).replace(".jpg", "_3.jpg"),
        }
        for photo, number, box, texts in OBJECTS
    ]
    return library.Dataset.from_list(rows).cast_column("image", library.Image())


def write_hub(folder: Path, split: str = "testA", way: str = "dict") -> Path:
    if way == "dict":
        library.DatasetDict({split: table()}).save_to_disk(folder)
    elif way == "table":
        table().save_to_disk(folder)
    else:
        (folder / "data").mkdir(parents=True)
        table().to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("way", ["dict", "table", "parquet"])
def test_every_expression_of_an_object_is_one(way, tmp_path) -> None:
    rows = read_hub(str(write_hub(tmp_path / "set", way=way)), "testA")
    entries = [rows[index] for index in range(len(rows))]
    assert [(one.text, one.box, PHOTOS[int(one.coco_id)], one.coco_id) for one in entries] == (
        expected()
    )
    assert [one.id for one in entries[:4]] == ["4016-0", "4016-1", "4016-2", "4003-0"]
    assert {one.size for one in entries} == {None}
    assert [rows.encoded_image(one) for one in entries] == [
        encoded(int(one.coco_id)) for one in entries
    ]


@pytest.mark.parametrize("way", ["dict", "parquet"])
def test_an_unknown_split_is_told_with_those_that_are_there(way, tmp_path) -> None:
    with pytest.raises(UserError, match=r"testB.*testA"):
        read_hub(str(write_hub(tmp_path / "set", way=way)), "testB")


def test_a_table_of_another_kind_is_refused(tmp_path) -> None:
    table().remove_columns("bbox").save_to_disk(tmp_path / "a")
    with pytest.raises(UserError, match="bbox missing among question_id, image, question, answer"):
        read_hub(str(tmp_path / "a"), "testA")
    joined = table().to_list()
    for row in joined:
        row["answer"] = " ".join(row["answer"])
    library.Dataset.from_list(joined).save_to_disk(tmp_path / "b")
    with pytest.raises(UserError, match="a list of expressions as answer in row 0"):
        read_hub(str(tmp_path / "b"), "testA")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"testA of .* could not be loaded .*; check the files"):
        read_hub(str(tmp_path / "c"), "testA")
    with pytest.raises(UserError, match=r"got '/no/where', which is neither"):
        read_hub("/no/where", "testA")


def test_photos_may_be_files_beside_the_table(tmp_path) -> None:
    folder = write_photos(tmp_path / "set" / "test")
    with (folder / "metadata.jsonl").open("w") as file:
        for photo, number, box, texts in OBJECTS:
            row = {"question_id": number, "answer": texts, "bbox": box}
            file.write(json.dumps({"file_name": photo_name(photo), **row}) + "\n")
    rows = read_hub(str(tmp_path / "set"), "test")
    assert [(rows[index].text, rows[index].box) for index in range(len(rows))] == [
        one[:2] for one in expected()
    ]
    assert rows.encoded_image(rows[3]) == folder / photo_name(9)


def test_a_row_without_a_photo_spoils_nothing_else(tmp_path) -> None:
    rows = table().to_list()
    rows[1]["image"] = None
    data = library.Dataset.from_list(rows).cast_column("image", library.Image())
    data.save_to_disk(tmp_path / "set")
    rows = read_hub(str(tmp_path / "set"), "testA")
    assert rows.encoded_image(rows[0]) == encoded(581857)
    with pytest.raises(OSError, match="row 1 has no image"):
        rows.encoded_image(rows[3])


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_does_not_answer_is_one_sentence(offline, monkeypatch) -> None:
    monkeypatch.setattr(library.config, "HF_ENDPOINT", "http://127.0.0.1:9")  # refused at once
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it tries again"))
    with pytest.raises(UserError, match=r"could not be loaded .*hf download .* HF_HUB_OFFLINE=1"):
        read_hub("someone/RefCOCO", "testA")


def test_without_the_library_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the package datasets; pip install ivcp\[hub\]"):
        read_hub("lmms-lab/RefCOCO", "testA")


def test_the_place_is_a_folder_of_the_root_if_there_is_one(tmp_path) -> None:
    assert usual_source("refcocoplus", tmp_path) == "lmms-lab/RefCOCOplus"
    (tmp_path / "RefCOCOplus").mkdir()
    assert usual_source("refcocoplus", tmp_path) == str(tmp_path / "RefCOCOplus")


def test_mixed_splits_are_refused_and_no_others() -> None:
    with pytest.raises(UserError, match=r"val of lmms-lab/RefCOCO mixes 3,811 objects .* 5,000"):
        refuse_mixed("refcoco", "val")
    with pytest.raises(UserError, match="test of lmms-lab/RefCOCO is google's"):
        refuse_mixed("refcoco", "test")
    with pytest.raises(UserError, match=r"val of lmms-lab/RefCOCOg mixes 2,573 objects .* 5,000"):
        refuse_mixed("refcocog", "val")
    for name, split in (
        ("refcoco", "testA"), ("refcoco", "testB"), ("refcocoplus", "val"),
        ("refcocoplus", "testA"), ("refcocoplus", "testB"), ("refcocog", "test"),
    ):  # fmt: skip
        refuse_mixed(name, split)
