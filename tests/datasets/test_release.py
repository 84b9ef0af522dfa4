"""The research release's tables in both frames, with photos inside and beside them."""

from __future__ import annotations

import base64
import io
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from test_mdetr import PHOTOS, expected, photo_name, write_photos

from ivcp.core.errors import UserError
from ivcp.datasets.expressions import Expression
from ivcp.datasets.release import ReleaseRows, file_names, read_release


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", PHOTOS[number], (number % 256, 90, 20)).save(file, "JPEG")
    return file.getvalue()


def answer(box: tuple[float, ...], size: tuple[int, int], coordinates: str) -> str:
    """Corners as the release's converter writes them."""
    if coordinates == "pixels":
        return " ".join(map(str, box))
    sides = [round(side / 28) * 28 for side in size]
    return " ".join(str(round(box[i] * sides[i % 2] / size[i % 2])) for i in range(4))


def rows(coordinates: str = "pixels") -> list[dict[str, Any]]:
    return [
        {
            "index": 900 + number,
            "image": base64.b64encode(encoded(int(photo))).decode(),
            "question": text,
            "height": size[1],
            "width": size[0],
            "answer": answer(box, size, coordinates),
        }
        for number, (text, box, size, photo) in enumerate(expected())
    ]


def write_release(path: Path, coordinates: str = "pixels", content: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = rows(coordinates) if content is None else content
    pd.DataFrame(content).to_csv(path, sep="\t", index=False)
    return path


def entries(table: ReleaseRows) -> list[Expression]:
    return [table[index] for index in range(len(table))]


def test_boxes_in_pixels_come_back_exactly(tmp_path) -> None:
    table = read_release(write_release(tmp_path / "a.tsv"), "pixels")
    found = entries(table)
    assert [(one.text, one.box, one.size) for one in found] == [one[:3] for one in expected()]
    assert [one.id for one in found] == [str(900 + number) for number in range(7)]
    photos = [encoded(int(photo)) for *_, photo in expected()]
    assert [table.encoded_image(one) for one in found] == photos
    assert table.notes == ()


def test_boxes_of_the_resized_photo_come_back_within_half_a_unit(tmp_path) -> None:
    table = read_release(write_release(tmp_path / "a.tsv", "qwen25"), "qwen25")
    resized = {(64, 48): (56, 56), (40, 60): (28, 56), (84, 42): (84, 56)}  # 42 is 1.5 x 28: to 2
    for one, (_, box, size, _) in zip(entries(table), expected(), strict=True):
        for i in range(4):
            unit = size[i % 2] / resized[size][i % 2]
            assert abs(one.box[i] - box[i]) <= unit / 2
    assert table[0].box == pytest.approx((10 * 64 / 56, 12 * 48 / 56, 36 * 64 / 56, 32 * 48 / 56))


def test_boxes_that_cannot_be_of_the_declared_frame_are_told(tmp_path) -> None:
    with pytest.raises(UserError, match=r"means whole numbers, but .* use .*coordinates=pixels"):
        read_release(write_release(tmp_path / "a.tsv"), "qwen25")
    table = read_release(write_release(tmp_path / "b.tsv", "qwen25"), "pixels")
    assert len(table.notes) == 1
    assert "declare dataset.coordinates=qwen25" in table.notes[0]


def test_photos_may_lie_beside_the_file(tmp_path) -> None:
    content = rows()
    photos = [int(photo) for *_, photo in expected()]
    places = [
        write_photos(tmp_path / "somewhere"),  # stands there in full
        Path("train2014"),  # below the file's folder
        Path(),  # where VLMEvalKit puts photos that it takes out of a file
    ]
    write_photos(tmp_path / "train2014")
    write_photos(tmp_path / "images" / "RefCOCO_val")
    for number, row in enumerate(content):
        del row["image"]
        row["image_path"] = str(places[number % 3] / photo_name(photos[number]))
    path = write_release(tmp_path / "RefCOCO_val_local.tsv", content=content)
    table = read_release(path, "pixels")
    found = entries(table)
    assert [one.coco_id for one in found] == list(map(str, photos))
    folders = [tmp_path / "somewhere", tmp_path / "train2014", tmp_path / "images" / "RefCOCO_val"]
    for number, one in enumerate(found):
        assert table.encoded_image(one) == folders[number % 3] / photo_name(photos[number])
    for row in content:
        row["image_path"] = "nowhere.jpg"
    with pytest.raises(UserError, match="None of the 7 images"):
        read_release(write_release(tmp_path / "absent.tsv", content=content), "pixels")


def test_a_bad_row_spoils_no_other(tmp_path) -> None:
    content = rows()
    content[0]["answer"] = "1 2 3"
    content[1]["answer"] = "30 2 10 40"
    content[2]["width"] = ""
    content[3]["image"] = "A"
    content[4]["image"] = ""
    content[6]["index"] = ""
    path = write_release(tmp_path / "a.tsv", content=content)
    with path.open("a") as file:
        file.write("907\ttoo few\n")
    table = read_release(path, "pixels")
    for number, sentence in enumerate(
        ("a box of four numbers in row 0", "positive width and height in row 1",
         "whole pixels in row 2 of .* got '' and '48'")
    ):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            table[number]
    with pytest.raises(OSError, match="the cell of the image is no base64"):
        table.encoded_image(table[3])
    assert table.encoded_image(table[4]) == b""
    assert table[5].text == "her"
    with pytest.raises(UserError, match="Expected an index in row 6"):
        table[6]
    with pytest.raises(UserError, match="6 cells in row 7"):
        table[7]
    assert "1 of 8 rows" in table.notes[0]


def test_too_small_a_photo_has_no_resized_frame(tmp_path) -> None:
    content = rows("qwen25")[:1]
    content[0] |= {"width": 14, "answer": "1 2 10 10"}
    table = read_release(write_release(tmp_path / "a.tsv", content=content), "qwen25")
    with pytest.raises(UserError, match=r"sides above 14 pixels .* row 0 of .* has 14 x 48"):
        table[0]


def test_missing_columns_are_told(tmp_path) -> None:
    content = [{key: value for key, value in row.items() if key != "answer"} for row in rows()]
    with pytest.raises(UserError, match=r"answer missing among index, image, question"):
        read_release(write_release(tmp_path / "a.tsv", content=content), "pixels")
    content = [{key: value for key, value in row.items() if key != "image"} for row in rows()]
    with pytest.raises(UserError, match=r"a column image or image_path in .*b\.tsv; it has index"):
        read_release(write_release(tmp_path / "b.tsv", content=content), "pixels")


def test_it_can_be_sent_to_another_process(tmp_path) -> None:
    table = read_release(write_release(tmp_path / "a.tsv"), "pixels")
    copy = pickle.loads(pickle.dumps(table))
    assert entries(copy) == entries(table)


def test_each_frame_has_its_own_file() -> None:
    assert file_names("RefCOCO+_testA", "pixels") == (
        "RefCOCO+_testA.tsv", "RefCOCO+_testA_local.tsv",
    )  # fmt: skip
    assert not set(file_names("RefCOCO_val", "pixels")) & set(file_names("RefCOCO_val", "qwen25"))
