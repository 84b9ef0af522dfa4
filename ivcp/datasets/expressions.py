"""Referring expressions as every source of them gives them, and the checks that sources share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ivcp.core.errors import UserError
from ivcp.core.types import Box

COCO_FILE = re.compile(r"COCO_train2014_0*(\d+)")


@dataclass(frozen=True, slots=True)
class Expression:
    """One referring expression and the object that it names.

    Attributes:
        id: Unique in its split and stable; the source's own number.
        text: The expression.
        box: In pixels of the original image; None if the source has none that is a box.
        size: Annotated `(width, height)` of the image in pixels; None if the source has none.
        image: What `Source.picture` finds the image by: a file name or the number of a row.
        coco_id: COCO's number of the image; empty if the source does not tell.
        broken: Why there is no box; empty if there is one.
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

    def picture(self, expression: Expression) -> bytes | Path:
        """The encoded image, or the file that holds it.

        Raises:
            OSError: It cannot be read.
            UserError: Its row cannot be read.
        """


@dataclass(frozen=True)
class Listed:
    """Expressions whose photos lie in a folder.

    Attributes:
        entries: The expressions; `image` is a file name.
        folder: Holds the photos.
    """

    entries: Sequence[Expression]
    folder: Path

    def __post_init__(self) -> None:
        """Check that the folder is the right one.

        Raises:
            UserError: It is absent, or holds none of the photos.
        """
        missing = not self.folder.is_dir()
        if missing or not any((self.folder / str(one.image)).exists() for one in self.entries):
            what = "is no folder" if missing else f"holds none of {len(self.entries)} photos"
            raise UserError(
                f"Expected COCO's train2014 photos (COCO_train2014_....jpg) in {self.folder}, "
                f"which {what}; unpack http://images.cocodataset.org/zips/train2014.zip there, or "
                "point data.coco at the folder that has them."
            )

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Expression:
        return self.entries[index]

    def picture(self, expression: Expression) -> Path:
        return self.folder / str(expression.image)


def find_file(given: str | None, root: Path, names: Sequence[str], whence: str) -> Path:
    """The annotation file: `given` itself, or the first of `names` in the folder `given` or `root`.

    Args:
        given: A file or folder of the user's choice; None leaves it to the root.
        root: Folder of benchmark files.
        names: Paths below the folder, the usual one first.
        whence: Where to get the file, for the message.

    Raises:
        UserError: There is none.
    """
    if given is None:
        wanted = [root / name for name in names]
    else:
        place = Path(given).expanduser()
        if place.is_file():
            return place
        if not place.is_dir():
            raise UserError(
                f"dataset.annotations is {given}, which is neither a file nor a folder; get the "
                f"file from {whence}."
            )
        wanted = [place / part for name in names for part in (name, Path(name).name)]
    for path in wanted:
        if path.is_file():
            return path
    places = " or ".join(str(path) for path in dict.fromkeys(wanted))
    raise UserError(
        f"Expected the file {places}; get it from {whence}, or point data.root at the folder of "
        "benchmark files, or dataset.annotations at the file itself."
    )


def corners(box: object, where: str) -> Box:
    """`(x, y, width, height)` as `(x1, y1, x2, y2)`.

    >>> corners([10.5, 20, 5, 8], "here")
    (10.5, 20.0, 15.5, 28.0)

    Raises:
        UserError: It is not four finite numbers, or a side is not positive.
    """
    x, y, width, height = four_numbers(box, where)
    return with_area((x, y, x + width, y + height), where)


def with_area(box: Box, where: str) -> Box:
    """The box itself.

    Raises:
        UserError: Its second corner is not to the right of and below the first.
    """
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        raise UserError(
            f"Expected a box with a positive width and height in {where}; got the corners {box}."
        )
    return box


def corners_or_reason(box: object, where: str) -> tuple[Box | None, str]:
    """As `corners`; or None and why it is no box, which breaks one expression and not the file.

    >>> corners_or_reason([0, 0, 0, 8], "here")[0] is None
    True
    """
    try:
        return corners(box, where), ""
    except UserError as error:
        return None, str(error)


def four_numbers(values: object, where: str) -> Box:
    """Four finite numbers, or texts of numbers, as floats.

    Raises:
        UserError: They are something else.
    """
    try:
        first, second, third, fourth = map(float, values)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise UserError(f"Expected a box of four numbers in {where}; got {values!r}.") from error
    if not all(map(math.isfinite, (first, second, third, fourth))):
        raise UserError(f"Expected a box of finite numbers in {where}; got {values!r}.")
    return first, second, third, fourth


def image_size(width: object, height: object, where: str) -> tuple[int, int]:
    """Width and height in pixels, from numbers or their texts.

    >>> image_size("640", 480.0, "here")
    (640, 480)

    Raises:
        UserError: They are not whole numbers above 0.
    """
    try:
        sides = [float(value) for value in (width, height)]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        sides = []
    if not sides or not all(side.is_integer() and side > 0 for side in sides):
        raise UserError(
            f"Expected the width and height of an image in whole pixels in {where}; "
            f"got {width!r} and {height!r}."
        )
    return int(sides[0]), int(sides[1])


def fields(entry: object, names: Sequence[str], where: str) -> list[Any]:
    """The values of an entry's fields, in the order of `names`.

    Raises:
        UserError: It is no mapping, or lacks one.
    """
    if not isinstance(entry, Mapping):
        raise UserError(f"Expected {where} to have {', '.join(names)}; got {entry!r}.")
    absent = [name for name in names if name not in entry]
    if absent:
        raise UserError(
            f"Expected {where} to have {', '.join(names)}; {', '.join(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} missing."
        )
    return [entry[name] for name in names]


def distinct(entries: Sequence[Expression], where: Path | str) -> None:
    """Check that there are entries and no two of the same id.

    Raises:
        UserError: There are none, or two share an id.
    """
    if not entries:
        raise UserError(f"{where} holds no expression of this split; check dataset.split.")
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise UserError(f"{where} has the id {entry.id} twice; expected one expression an id.")
        seen.add(entry.id)


def coco_number(name: str) -> str:
    """COCO's number of a train2014 photo by its file name, empty for another name.

    >>> coco_number("COCO_train2014_000000581857_16.jpg")
    '581857'
    """
    found = COCO_FILE.match(name)
    return found.group(1) if found else ""
