"""MDETR's annotation files: COCO's layout with one image entry for each expression."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from ivcp.core.errors import UserError
from ivcp.datasets.expressions import (
    Expression,
    coco_number,
    corners_or_reason,
    distinct,
    fields,
    image_size,
)

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
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); get {ARCHIVE} again.") from error
    images, annotations = fields(content, ("images", "annotations"), str(path))
    boxes, counts = {}, Counter[object]()
    for number, annotation in enumerate(annotations):
        where = f"annotation {number} of {path}"
        image, box = fields(annotation, ("image_id", "bbox"), where)
        boxes[image] = corners_or_reason(box, where)
        counts[image] += 1
    entries = []
    for number, image in enumerate(images):
        where = f"image entry {number} of {path}"
        identity, file, width, height, caption = fields(
            image, ("id", "file_name", "width", "height", "caption"), where
        )
        if counts[identity] != 1:
            raise UserError(
                f"Expected exactly one annotation for each image entry; {where} (id {identity}) "
                f"has {counts[identity]}. Use a finetune_refcoco*.json of {ARCHIVE}."
            )
        corners, reason = boxes[identity]
        entries.append(
            Expression(
                id=str(identity),
                text=str(caption),
                box=corners,
                broken=reason,
                size=image_size(width, height, where),
                image=str(file),
                coco_id=coco_number(str(file)),
            )
        )
    distinct(entries, path)
    return entries
