"""The original files of the RefCOCO family: `refs(unc).p` beside `instances.json`."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

from ivcp.core.errors import UserError
from ivcp.datasets.expressions import (
    Expression,
    coco_number,
    corners_or_reason,
    distinct,
    fields,
    image_size,
)

ARCHIVE = "the archive of that folder's name of https://github.com/lichengunc/refer"
DAMAGE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError,
    ValueError,
)  # fmt: skip  # what a damaged pickle raises


class PrimitivesOnly(pickle.Unpickler):
    """Reads containers, texts and numbers; a pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


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
        part, annotation, image, file, sentences = fields(
            ref, ("split", "ann_id", "image_id", "file_name", "sentences"), where
        )
        if part != split:
            continue
        if annotation not in boxes or image not in sizes:
            raise UserError(
                f"{where} refers to annotation {annotation} of image {image}, which {instances} "
                "does not have; use the two files of one archive."
            )
        box, reason = corners_or_reason(
            boxes[annotation], f"annotation {annotation} of {instances}"
        )
        for sentence in sentences:
            identity, text = fields(sentence, ("sent_id", "sent"), f"a sentence of {where}")
            entries.append(
                Expression(
                    id=str(identity),
                    text=str(text),
                    box=box,
                    broken=reason,
                    size=sizes[image],
                    image=photo_name(str(file)),
                    coco_id=coco_number(str(file)),
                )
            )
    distinct(entries, path)
    return entries


def photo_name(file: str) -> str:
    """COCO's name of a photo: the original files add the number of the object.

    >>> photo_name("COCO_train2014_000000581857_16.jpg")
    'COCO_train2014_000000581857.jpg'
    """
    return re.sub(r"(?<=_\d{12})_\d+(?=\.)", "", file)


def _read_refs(path: Path) -> list[Any]:
    """The list in the pickle, which Python 2 wrote."""
    try:
        with path.open("rb") as file:
            refs = PrimitivesOnly(file, encoding="latin1").load()
    except DAMAGE as error:
        raise UserError(
            f"Expected {path} to be a pickle of plain lists, texts and numbers, but {error}; "
            f"get it from {ARCHIVE}."
        ) from error
    if not isinstance(refs, list):
        raise UserError(f"Expected a list of references in {path}; got a {type(refs).__name__}.")
    return refs


def _read_instances(path: Path) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """`(x, y, width, height)` of each annotation and `(width, height)` of each image, by number."""
    try:
        with path.open("rb") as file:
            content = json.load(file, object_hook=_without_outline)
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); get it from {ARCHIVE}.") from error
    images, annotations = fields(content, ("images", "annotations"), str(path))
    boxes, sizes = {}, {}
    for number, annotation in enumerate(annotations):
        identity, box = fields(annotation, ("id", "bbox"), f"annotation {number} of {path}")
        boxes[identity] = box
    for number, image in enumerate(images):
        where = f"image {number} of {path}"
        identity, width, height = fields(image, ("id", "width", "height"), where)
        sizes[identity] = image_size(width, height, where)
    return boxes, sizes


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Outlines are most of the file and are not needed."""
    entry.pop("segmentation", None)
    return entry
