"""MDETR's annotation files; the objects and photos here are those of every source's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ivcp.core.errors import UserError
from ivcp.datasets.expressions import ListedExpressions, find_file
from ivcp.datasets.mdetr import file_names, read_mdetr

PHOTOS = {581857: (64, 48), 9: (40, 60), 25: (84, 42)}  # COCO's number -> width, height
OBJECTS: list[tuple[int, int, list[float], list[str]]] = [  # photo, object, x y w h, expressions
    (581857, 4016, [10.93, 9.99, 30.22, 17.42], ["Lady in BLUE", " left  guy. ", "her"]),
    (9, 4003, [0, 1.5, 39, 58.25], ['the "big" bowl']),
    (581857, 4020, [50.0, 2, 13.125, 40], ["man's café, 2nd\tfrom right", "her"]),
    (25, 4001, [41, 0.01, 42.99, 41.9], ["giraffe"]),
]


def photo_name(number: int) -> str:
    return f"COCO_train2014_{number:012}.jpg"


def write_photos(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, size in PHOTOS.items():
        Image.effect_noise(size, 60).convert("RGB").save(folder / photo_name(number))
    return folder


def expected() -> list[tuple[str, tuple[float, ...], tuple[int, int], str]]:
    """Text, corners, size and COCO's number of every expression, in order."""
    return [
        (text, (x, y, x + w, y + h), PHOTOS[photo], str(photo))
        for photo, _, (x, y, w, h), texts in OBJECTS
        for text in texts
    ]


def mdetr_content(first: int = 4711) -> dict[str, Any]:
    """The layout of finetune_refcoco*.json: running numbers, and annotations in another order."""
    images, annotations = [], []
    for photo, number, box, texts in OBJECTS:
        for text in texts:
            running = first + len(images)
            width, height = PHOTOS[photo]
            images.append(
                {
                    "file_name": photo_name(photo), "height": height, "width": width,
                    "id": running, "original_id": photo, "caption": text,
                    "dataset_name": "refcoco", "tokens_negative": [[0, len(text)]],
                }
            )  # fmt: skip
            annotations.append(
                {
                    "area": box[2] * box[3], "iscrowd": 0, "image_id": running, "category_id": 1,
                    "id": running, "bbox": box, "original_id": number, "tokens_positive": [[0, 3]],
                }
            )  # fmt: skip
    return {
        "info": [], "licenses": [], "categories": [], "images": images,
        "annotations": annotations[::-1],
    }  # fmt: skip


def write_mdetr(path: Path, content: object = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mdetr_content() if content is None else content))
    return path


def test_every_image_entry_is_an_expression_with_its_own_box(tmp_path) -> None:
    entries = read_mdetr(write_mdetr(tmp_path / "a.json"))
    assert [(one.text, one.box, one.size, one.coco_id) for one in entries] == expected()
    assert entries[0].box == pytest.approx((10.93, 9.99, 41.15, 27.41))
    assert [one.id for one in entries] == [str(4711 + number) for number in range(7)]
    assert entries[3].image == "COCO_train2014_000000000009.jpg"


def broken(change: str) -> dict[str, Any]:
    content = mdetr_content()
    images, annotations = content["images"], content["annotations"]
    first = next(one for one in annotations if one["image_id"] == images[0]["id"])
    if change == "no annotation":
        annotations.remove(first)
    elif change == "two annotations":
        annotations.append(dict(first))
    elif change == "twice the same id":
        images.append(dict(images[0]))
    elif change == "no caption":
        del images[0]["caption"]
    elif change == "no images":
        del content["images"]
    elif change == "empty":
        content |= {"images": [], "annotations": []}
    elif change == "width":
        images[0]["width"] = "wide"
    else:
        first["bbox"] = json.loads(change)
    return content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("no annotation", r"exactly one annotation .* image entry 0 .* \(id 4711\) has 0"),
        ("two annotations", r"exactly one annotation .* image entry 0 .* \(id 4711\) has 2"),
        ("twice the same id", "has the id 4711 twice"),
        ("no caption", "image entry 0 of .* caption is missing"),
        ("no images", "to have images, annotations; images is missing"),
        ("empty", "holds no expression of this split"),
        ("width", "whole pixels in image entry 0 .* got 'wide' and 48"),
    ],
)
def test_a_file_of_another_kind_is_refused(change, sentence, tmp_path) -> None:
    with pytest.raises(UserError, match=sentence):
        read_mdetr(write_mdetr(tmp_path / "a.json", broken(change)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("[1, 2, 3]", "a box of four numbers in annotation 6"),
        ("[1, 2, 0, 5]", "positive width and height in annotation 6"),
        ("[1, 2, 3, -5]", "positive width and height in annotation 6"),
        ("[1, 2, 3, NaN]", "a box of finite numbers in annotation 6"),
        ("null", "a box of four numbers in annotation 6"),
    ],
)
def test_what_is_no_box_breaks_one_expression(change, reason, tmp_path) -> None:
    entries = read_mdetr(write_mdetr(tmp_path / "a.json", broken(change)))
    (bad,) = (entry for entry in entries if entry.broken)
    assert bad.box is None
    assert reason in bad.broken
    assert all(entry.box for entry in entries if entry is not bad)


def test_a_torn_file_is_refused(tmp_path) -> None:
    path = write_mdetr(tmp_path / "a.json")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"a\.json is no JSON .*zenodo"):
        read_mdetr(path)


def test_the_file_is_found_where_archives_put_it(tmp_path) -> None:
    names = file_names("refcocog", "val")
    for name in reversed(names):  # the usual place wins
        path = write_mdetr(tmp_path / name)
        assert find_file(None, tmp_path, names, "there") == path
    own = write_mdetr(tmp_path / "own" / "finetune_refcocog_val.json")
    assert find_file(str(own), tmp_path, names, "there") == own
    assert find_file(str(own.parent), tmp_path, names, "there") == own


def test_an_absent_file_is_told_with_place_and_origin(tmp_path) -> None:
    names = file_names("refcoco", "val")
    wanted = rf"{tmp_path}/finetune_refcoco_val.json or .*; get it from there, or point data\.root"
    with pytest.raises(UserError, match=wanted):
        find_file(None, tmp_path, names, "there")
    with pytest.raises(UserError, match=r"annotations is /no/where\.json, which is neither a file"):
        find_file("/no/where.json", tmp_path, names, "there")


def test_photos_are_looked_for_once(tmp_path) -> None:
    entries = read_mdetr(write_mdetr(tmp_path / "a.json"))
    with pytest.raises(UserError, match=r"images .* in .*/train2014, which is no folder"):
        ListedExpressions(entries, tmp_path / "train2014")
    folder = write_photos(tmp_path / "train2014")
    assert ListedExpressions(entries, folder).encoded_image(entries[3]) == folder / photo_name(9)
    for number in PHOTOS:
        (folder / photo_name(number)).unlink()
    with pytest.raises(UserError, match=r"holds none of 7 images; unpack .* data\.coco"):
        ListedExpressions(entries, folder)
