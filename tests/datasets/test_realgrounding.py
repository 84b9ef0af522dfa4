"""Fifty real photos, expressions and boxes, and what the release's converter makes of them."""

from __future__ import annotations

import base64
import csv
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from test_release import answer

from ivcp.core.errors import UserError
from ivcp.datasets.refcoco import RefCOCO


@pytest.fixture
def truth(realdata: Path) -> list[dict[str, str]]:
    with (realdata / "derived" / "real50.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def converted(realdata: Path) -> pd.DataFrame:
    """What the release's converter wrote, without the photos."""
    path = realdata / "derived" / "fork_convert_to_tsv_expected.tsv"
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


@pytest.fixture
def mdetr(realdata: Path) -> RefCOCO:
    return RefCOCO(
        name="refcoco",
        split="val",
        annotations=str(realdata / "derived" / "finetune_refcoco_real50.json"),
        photos=str(realdata / "derived" / "train2014"),
    )


def test_real_rows_load(truth, mdetr) -> None:
    assert len(mdetr) == len(truth) == 50
    for number, row in enumerate(truth):
        sample = mdetr[number]
        x, y, width, height = (float(row[side]) for side in "xywh")
        assert sample.question == row["expression"]
        assert sample.answer == pytest.approx((x, y, x + width, y + height), abs=1e-9)
        assert sample.labels == {"image_id": row["image_id"]}
        (photo,) = sample.images
        assert photo.size == (int(row["img_width"]), int(row["img_height"]))
        assert 0 <= sample.answer[0] < sample.answer[2] <= photo.width
        assert 0 <= sample.answer[1] < sample.answer[3] <= photo.height


@pytest.mark.parametrize(
    ("coordinates", "column"), [("pixels", "answer"), ("qwen25", "answer_qwen25")]
)
def test_the_release_writes_these_boxes_so_and_they_come_back(
    coordinates, column, realdata, converted, mdetr, tmp_path
) -> None:
    samples = [mdetr[number] for number in range(len(mdetr))]
    written = [answer(one.answer, one.images[0].size, coordinates) for one in samples]
    assert written == list(converted[column])

    table = converted[["index", "question", "height", "width"]].assign(answer=converted[column])
    photos = [f"COCO_train2014_{int(one.labels['image_id']):012}.jpg" for one in samples]
    contents = [(realdata / "derived" / "train2014" / name).read_bytes() for name in photos]
    table["image"] = [base64.b64encode(content).decode() for content in contents]
    table.to_csv(tmp_path / "set.tsv", sep="\t", index=False)
    data = RefCOCO(
        name="refcoco",
        split="val",
        source="release",
        coordinates=coordinates,
        annotations=str(tmp_path / "set.tsv"),
    )
    assert data.notes == ()
    for number, sample in enumerate(samples):
        found = data[number]
        size = found.images[0].size
        assert (found.id, found.question) == (sample.id, sample.question)
        assert found.images[0].tobytes() == sample.images[0].tobytes()
        if coordinates == "pixels":
            assert found.answer == sample.answer
            continue
        for i in range(4):
            side = size[i % 2]
            unit = side / (round(side / 28) * 28)  # pixels of the photo in one of the resized one
            assert abs(found.answer[i] - sample.answer[i]) <= unit / 2 + 1e-9


def test_photos_beside_the_table(realdata, converted, mdetr, tmp_path) -> None:
    table = converted.rename(columns={"answer_qwen25": "other"})
    samples = [mdetr[number] for number in range(len(mdetr))]
    photos = [f"COCO_train2014_{int(one.labels['image_id']):012}.jpg" for one in samples]
    table["image_path"] = [str(realdata / "derived" / "train2014" / name) for name in photos]
    table.to_csv(tmp_path / "RefCOCO_val_local.tsv", sep="\t", index=False)
    data = RefCOCO(name="refcoco", split="val", source="release", root=str(tmp_path))
    with pytest.raises(UserError, match=r"None of the 50 images .* data\.images_anywhere=true"):
        len(data)
    data = replace(data, images_anywhere=True)
    assert [data[number].answer for number in range(50)] == [one.answer for one in samples]
    assert [data[number].labels for number in range(50)] == [one.labels for one in samples]
    with Image.open(realdata / "derived" / "train2014" / photos[7]) as photo:
        assert data[7].images[0].tobytes() == photo.convert("RGB").tobytes()
