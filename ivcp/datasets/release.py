"""The research release's files: a table with expression, box and image in each row."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ivcp.core.errors import UserError
from ivcp.core.types import Box
from ivcp.datasets.annotation_values import caption_problem, four_numbers, image_size, with_area
from ivcp.datasets.cells import decode_base64
from ivcp.datasets.data_root import image_file
from ivcp.datasets.expressions import Expression, coco_number
from ivcp.datasets.tsv_rows import RowFile

Coordinates: TypeAlias = Literal["pixels", "qwen25"]
"""Of the original image; or of the image as Qwen2.5-VL resizes it, rounded to whole numbers."""

CONVERTER = "convert_to_tsv.py of the IVC-Prune release, run on MDETR's annotations"
PATCH = 28  # pixels, each way, of one visual token of Qwen2.5-VL
CHECKED_ROWS = 10  # at the beginning, whose boxes are compared with the declared frame


def file_names(benchmark: str, coordinates: Coordinates) -> tuple[str, ...]:
    """What the file is usually called, with the images inside or beside it.

    >>> file_names("RefCOCO_val", "qwen25")
    ('RefCOCO_val_for_qwen25vl.tsv', 'RefCOCO_val_for_qwen25vl_local.tsv')
    """
    stem = benchmark + ("_for_qwen25vl" if coordinates == "qwen25" else "")
    return f"{stem}.tsv", f"{stem}_local.tsv"


@dataclass(frozen=True)
class ReleaseRows:
    """The expressions of one file, each row read when it is needed; an id is the cell `index`.

    Attributes:
        file: Has the columns index, question, height, width, answer, and image (base64 of the
            image's file) or image_path.
        coordinates: The frame of the answers, `x1 y1 x2 y2`.
        anywhere: Whether paths may leave the folders of `image_file`.
        notes: What a reader of results must know about the file.
    """

    file: RowFile
    coordinates: Coordinates
    anywhere: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> Expression:
        """One row.

        Raises:
            UserError: It does not have the header's cells, an index, a size or a box.
        """
        row, where = self.file[index], f"row {index} of {self.file.path}"
        if not row["index"]:
            raise UserError(f"Expected an index in {where}; its cell is empty.")
        size = image_size(row["width"], row["height"], where)
        box = four_numbers(row["answer"].split(), where)
        if self.coordinates == "qwen25":
            box = original(box, size, where)
        return Expression(
            id=row["index"],
            text=row["question"],
            box=with_area(box, where),
            size=size,
            image=index,
            coco_id=coco_number(Path(row.get("image_path", "")).name),
            broken=caption_problem(row["question"], where),
        )

    def encoded_image(self, expression: Expression) -> bytes | Path:
        row = self.file[int(expression.image)]
        if row.get("image_path") and not row.get("image"):
            return self.image_file(row["image_path"])
        return decode_base64(row.get("image", ""))

    def image_file(self, path: str) -> Path:
        """Where the image of a cell `image_path` lies.

        A relative path is looked up beside the file, then in `images/<name of the file>`, where
        VLMEvalKit puts the images that it takes out of a file.

        Raises:
            UserError: It leaves these folders, which `anywhere` does not allow.
        """
        folder = self.file.path.parent
        unpacked = folder / "images" / self.file.path.stem.removesuffix("_local")
        return image_file(path, (folder, unpacked), self.anywhere)


def original(box: Box, size: tuple[int, int], where: str) -> Box:
    """A box of the resized image in pixels of the original one.

    Each side was brought to the nearest multiple of 28, halves to the even one.

    >>> original((119, 280, 238, 420), (480, 560), "here")
    (120.0, 280.0, 240.0, 420.0)

    Args:
        box: In pixels of the resized image.
        size: `(width, height)` of the original image.
        where: For the message.

    Raises:
        UserError: A side is so short that nothing would be left of it.
    """
    resized = [round(side / PATCH) * PATCH for side in size]
    if 0 in resized:
        raise UserError(
            f"Expected images with sides above {PATCH // 2} pixels for coordinates=qwen25; "
            f"{where} has {size[0]} x {size[1]}."
        )
    x, y = size[0] / resized[0], size[1] / resized[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def read_release(path: Path, coordinates: Coordinates, anywhere: bool = False) -> ReleaseRows:
    """The file's rows, their boxes taken to be in the declared frame.

    Raises:
        UserError: Columns are missing, none of the images can be used, or "qwen25" is declared and
            the first boxes have fractions.
    """
    file = RowFile(path, required=("index", "question", "height", "width", "answer"))
    if not {"image", "image_path"} & set(file.columns):
        raise UserError(
            f"Expected a column image or image_path in {path}; it has {', '.join(file.columns)}."
        )
    notes = (*file.notes, *_frame_notes(file, coordinates))
    rows = ReleaseRows(file, coordinates, anywhere, notes)
    if "image" not in file.columns:
        _check_images(rows)
    return rows


def _check_images(rows: ReleaseRows) -> None:
    """Check that an image is there.

    Raises:
        UserError: None is.
    """
    reason = "put them into that place, or use a file that has them in its column image."
    for number in range(len(rows)):
        try:
            if rows.image_file(rows.file[number]["image_path"]).is_file():
                return
        except UserError as error:
            reason = str(error)
    raise UserError(
        f"None of the {len(rows)} images that {rows.file.path} names in its column image_path can "
        f"be used; {reason}"
    )


def _frame_notes(file: RowFile, coordinates: Coordinates) -> tuple[str, ...]:
    """What the first boxes say against the declared frame."""
    values: list[float] = []
    for number in range(min(CHECKED_ROWS, len(file))):
        with suppress(UserError):  # a broken row is counted when its sample is read
            values += four_numbers(file[number]["answer"].split(), "")
    whole_numbers = all(value.is_integer() for value in values)
    if coordinates == "qwen25" and not whole_numbers:
        raise UserError(
            f"dataset.coordinates=qwen25 means whole numbers, but boxes of {file.path} have "
            "fractions; use dataset.coordinates=pixels."
        )
    if coordinates == "pixels" and whole_numbers and values:
        return (
            f"The first boxes of {file.path.name} are whole numbers, as the release writes them "
            "for Qwen2.5-VL; if they are such, declare dataset.coordinates=qwen25.",
        )
    return ()
