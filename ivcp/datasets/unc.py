"""The original files of the RefCOCO family: `refs(unc).p` beside `instances.json`."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

from ivcp.core.errors import UserError
from ivcp.core.types import Box
from ivcp.datasets.annotation_values import (
    corners_or_reason,
    fields,
    image_size,
    list_of,
    read_id,
    read_json,
)
from ivcp.datasets.expressions import Expression, check_distinct, coco_number, make_expression

ARCHIVE = "the archive of that folder's name of https://github.com/lichengunc/refer"


class PrimitivesOnly(pickle.Unpickler):
    """Reads containers, texts and numbers; a pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def file_names(name: str, scheme: str) -> tuple[str, ...]:
    """Where the file usually lies under the data root.

    >>> file_names("refcocoplus", "unc")
    ('refcoco+/refs(unc).p',)
    """
    return (f"{name.replace('plus', '+')}/refs({scheme}).p",)


def read_unc(path: Path, split: str) -> list[Expression]:
    """The expressions of one split, one for each sentence; an id is the sentence's number.

    Args:
        path: The file `refs(...).p`; `instances.json` lies beside it.
        split: "val", "testA", "testB" or "test".

    Raises:
        UserError: A file is absent or not of this layout, or the pickle holds more than data.
    """
    instances = path.with_name("instances.json")
    if not instances.is_file():
        raise UserError(f"Expected {instances} beside {path.name}; get it from {ARCHIVE}.")
    boxes, sizes = _read_instances(instances)
    entries = []
    for number, ref in enumerate(_read_refs(path)):
        where = f"entry {number} of {path}"
        ref_split, box_id, image_id, file, sentences = fields(
            ref, ("split", "ann_id", "image_id", "file_name", "sentences"), where
        )
        if ref_split != split:
            continue
        box_id, image_id, file = (
            read_id(value, f"a name in {where}") for value in (box_id, image_id, file)
        )
        if box_id not in boxes or image_id not in sizes:
            raise UserError(
                f"{where} refers to annotation {box_id} of image {image_id}, which {instances} "
                "does not have; use the two files of one archive."
            )
        for sentence in list_of(sentences, f"sentences in {where}"):
            identity, text = fields(sentence, ("sent_id", "sent"), f"a sentence of {where}")
            box, size, image = boxes[box_id], sizes[image_id], image_name(file)
            entries.append(
                make_expression(identity, text, box, size, image, coco_number(file), where)
            )
    check_distinct(entries, path)
    return entries


def image_name(file: str) -> str:
    """COCO's name of an image: the original files add the number of the object.

    >>> image_name("COCO_train2014_000000581857_16.jpg")
    'COCO_train2014_000000581857.jpg'
    """
    return re.sub(r"(?<=_\d{12})_\d+(?=\.)", "", file)


def _read_refs(path: Path) -> list[Any]:
    """The list in the pickle, which Python 2 wrote."""
    try:
        with path.open("rb") as file:
            refs = PrimitivesOnly(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises whatever its opcodes lead to
        raise UserError(
            f"Expected {path} to be a pickle of plain lists, texts and numbers, but {error}; "
            f"get it from {ARCHIVE}."
        ) from error
    return list_of(refs, f"references in {path}")


def _read_instances(
    path: Path,
) -> tuple[dict[str, tuple[Box | None, str]], dict[str, tuple[int, int]]]:
    """Corners of each annotation (`corners_or_reason`) and size of each image, by id."""
    content = read_json(path, ARCHIVE, object_hook=_without_outline)
    images, annotations = fields(content, ("images", "annotations"), str(path))
    boxes, sizes = {}, {}
    for number, annotation in enumerate(list_of(annotations, f"annotations in {path}")):
        where = f"annotation {number} of {path}"
        identity, box = fields(annotation, ("id", "bbox"), where)
        boxes[read_id(identity, f"the id of {where}")] = corners_or_reason(box, where)
    for number, image in enumerate(list_of(images, f"images in {path}")):
        where = f"image {number} of {path}"
        identity, width, height = fields(image, ("id", "width", "height"), where)
        sizes[read_id(identity, f"the id of {where}")] = image_size(width, height, where)
    return boxes, sizes


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Outlines are most of the file and are not needed."""
    entry.pop("segmentation", None)
    return entry
