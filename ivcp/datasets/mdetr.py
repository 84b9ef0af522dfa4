"""MDETR's annotation files: COCO's layout with one image entry for each expression."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ivcp.core.errors import UserError
from ivcp.datasets.annotation_values import (
    corners_or_reason,
    fields,
    image_size,
    list_of,
    read_id,
    read_json,
)
from ivcp.datasets.expressions import Expression, check_distinct, coco_number, make_expression

ARCHIVE = "mdetr_annotations.tar.gz of https://zenodo.org/records/4729015"


def file_names(name: str, split: str) -> tuple[str, ...]:
    """Where the file usually lies under the data root: as it is, or in the archive's folder.

    >>> file_names("refcocoplus", "testA")[0]
    'finetune_refcoco+_testA.json'
    """
    file = f"finetune_{name.replace('plus', '+')}_{split}.json"
    return file, f"mdetr_annotations/{file}", f"OpenSource/{file}"


def read_mdetr(path: Path) -> list[Expression]:
    """The expressions of one file, in its order; an id is the file's running number.

    Raises:
        UserError: The file is not of this layout, or an image entry has not exactly one annotation.
    """
    images, annotations = fields(read_json(path, ARCHIVE), ("images", "annotations"), str(path))
    boxes, counts = {}, Counter[str]()
    for number, annotation in enumerate(list_of(annotations, f"annotations in {path}")):
        where = f"annotation {number} of {path}"
        image_id, box = fields(annotation, ("image_id", "bbox"), where)
        image_id = read_id(image_id, f"the image_id of {where}")
        boxes[image_id] = corners_or_reason(box, where)
        counts[image_id] += 1
    entries = []
    for number, image in enumerate(list_of(images, f"images in {path}")):
        where = f"image entry {number} of {path}"
        image_id, file, width, height, caption = fields(
            image, ("id", "file_name", "width", "height", "caption"), where
        )
        image_id = read_id(image_id, f"the id of {where}")
        file = read_id(file, f"the file_name of {where}")
        if counts[image_id] != 1:
            raise UserError(
                f"Expected exactly one annotation for each image entry; {where} (id {image_id}) "
                f"has {counts[image_id]}. Use a finetune_refcoco*.json of {ARCHIVE}."
            )
        size = image_size(width, height, where)
        entries.append(
            make_expression(
                image_id, caption, boxes[image_id], size, file, coco_number(file), where
            )
        )
    check_distinct(entries, path)
    return entries
