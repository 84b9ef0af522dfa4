"""Referring expressions as every source of them has them, and the checks that sources share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ivcp.core.errors import UserError
from ivcp.core.types import Box
from ivcp.datasets.annotation_values import caption_problem, printable, read_id
from ivcp.datasets.data_root import first_file, image_file, user_path

COCO_FILE = re.compile(r"COCO_train2014_0*(\d+)")


@dataclass(frozen=True, slots=True)
class Expression:
    """One referring expression and the object that it names.

    Attributes:
        id: Unique in its split and stable; the source's own number.
        text: The expression.
        box: In pixels of the original image; None if the source has none that is a box.
        size: Annotated `(width, height)` of the image in pixels; None if the source has none.
        image: What the source finds the image by: a file name or the number of a row.
        coco_id: COCO's number of the image; empty if the source does not have it.
        broken: Why the expression cannot be evaluated; empty if it can.
    """

    id: str
    text: str
    box: Box | None
    size: tuple[int, int] | None
    image: str | int
    coco_id: str
    broken: str = ""


class Source(Protocol):
    """The expressions of one split, in the order of the source."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Expression: ...

    def encoded_image(self, expression: Expression) -> bytes | Path:
        """The encoded image, or the file that holds it.

        Raises:
            OSError: It cannot be read.
            UserError: Its row cannot be read, or its path leaves the folder of the images.
        """


@dataclass(frozen=True)
class ListedExpressions:
    """Expressions whose images lie in a folder.

    Attributes:
        entries: The expressions; `image` is a file name.
        folder: Holds the images.
        anywhere: Whether file names may leave the folder.
    """

    entries: Sequence[Expression]
    folder: Path
    anywhere: bool = False

    def __post_init__(self) -> None:
        """Check that the folder is the right one.

        Raises:
            UserError: It is absent or holds none of the images.
        """
        missing = not self.folder.is_dir()
        if missing or not any(map(self._has_image, self.entries)):
            state = "is no folder" if missing else f"holds none of {len(self.entries)} images"
            raise UserError(
                f"Expected COCO's train2014 images (COCO_train2014_....jpg) in {self.folder}, "
                f"which {state}; unpack http://images.cocodataset.org/zips/train2014.zip there, or "
                "point data.coco at the folder that has them."
            )

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Expression:
        return self.entries[index]

    def encoded_image(self, expression: Expression) -> Path:
        return image_file(str(expression.image), [self.folder], self.anywhere)

    def _has_image(self, expression: Expression) -> bool:
        try:
            return (self.folder / str(expression.image)).exists()
        except (OSError, ValueError):  # no file can have such a name
            return False


def find_file(choice: str | None, root: Path, names: Sequence[str], origin: str) -> Path:
    """The annotation file: `choice` itself, or the first of `names` in its folder or the root.

    Args:
        choice: A file or folder of the user's; None means the root.
        root: Folder of benchmark files.
        names: Paths below the folder, the usual one first.
        origin: Where to get the file, for the message.

    Raises:
        UserError: There is none.
    """
    if choice is None:
        candidates = [root / name for name in names]
    else:
        path = user_path(choice)
        if path.is_file():
            return path
        if not path.is_dir():
            raise UserError(
                f"dataset.annotations is {choice}, which is neither a file nor a folder; get the "
                f"file from {origin}."
            )
        candidates = [path / name for listed in names for name in (listed, Path(listed).name)]
    if found := first_file(candidates):
        return found
    paths = " or ".join(str(candidate) for candidate in dict.fromkeys(candidates))
    raise UserError(
        f"Expected the file {paths}; get it from {origin}, or point data.root at the folder of "
        "benchmark files, or dataset.annotations at the file itself."
    )


def make_expression(
    identity: object,
    text: object,
    box: tuple[Box | None, str],
    size: tuple[int, int] | None,
    image: str | int,
    coco_id: str,
    where: str,
) -> Expression:
    """An expression from an entry of a source; a bad text or box breaks it and no other.

    Args:
        identity: A whole number or a text.
        text: The expression.
        box: What `corners_or_reason` gives.
        size: Annotated `(width, height)` of the image in pixels; None if the source has none.
        image: What the source finds the image by.
        coco_id: COCO's number of the image; empty if the source does not have it.
        where: The entry, for messages.

    Raises:
        UserError: The identity is something else.
    """
    corners, reason = box
    return Expression(
        id=read_id(identity, f"the id of {where}"),
        text=printable(text),
        box=corners,
        size=size,
        image=image,
        coco_id=coco_id,
        broken=caption_problem(text, where) or reason,
    )


def check_distinct(entries: Sequence[Expression], where: Path | str) -> None:
    """Check that there are entries and no two of the same id.

    Raises:
        UserError: There are none, or two share an id.
    """
    if not entries:
        raise UserError(f"{where} holds no expression of this split; check dataset.split.")
    ids: set[str] = set()
    for entry in entries:
        if entry.id in ids:
            raise UserError(f"{where} has the id {entry.id} twice; expected one expression an id.")
        ids.add(entry.id)


def coco_number(name: str) -> str:
    """COCO's number of a train2014 image by its file name, empty for another name.

    >>> coco_number("COCO_train2014_000000581857_16.jpg")
    '581857'
    """
    match = COCO_FILE.match(name)
    return match.group(1) if match else ""
