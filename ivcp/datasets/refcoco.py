"""RefCOCO, RefCOCO+ and RefCOCOg: locate the object in an image that an expression refers to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, get_args

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.pixels import decode
from ivcp.core.types import BOX_BEYOND_IMAGE, IMAGE_ID, Box, BrokenSample, Sample, Task
from ivcp.datasets import hf_rows, mdetr, release, unc
from ivcp.datasets.cells import image_id
from ivcp.datasets.data_root import data_root, user_path
from ivcp.datasets.expressions import Expression, ListedExpressions, Source, find_file

Name = Literal["refcoco", "refcocoplus", "refcocog"]
Annotations = Literal["mdetr", "release", "unc", "hub"]

TOLERANCE = 1.0
"""Pixels by which a box may reach beyond its image, because sources round boxes."""

PUBLISHED: dict[str, tuple[str, str, tuple[str, ...]]] = {  # title, scheme, splits
    "refcoco": ("RefCOCO", "unc", ("val", "testA", "testB")),
    "refcocoplus": ("RefCOCO+", "unc", ("val", "testA", "testB")),
    "refcocog": ("RefCOCOg", "umd", ("val", "test")),
}


@dataclass(frozen=True, kw_only=True)
class RefCOCO:
    """One published split; a sample is an expression, its answer a box in pixels of the image.

    The prompt has an expression as the source has it. An expression without a text or box, or whose
    image is absent, damaged or of another size than annotated, makes a `BrokenSample`. Nothing is
    read before the first `len` or index. Labels: `IMAGE_ID`, COCO's number where the source has
    it, and `BOX_BEYOND_IMAGE`.

    Attributes:
        task: "grounding".
        name: "refcoco", "refcocoplus" or "refcocog".
        split: "val", "testA" or "testB"; for RefCOCOg "val" or "test".
        source: "mdetr" (its `finetune_refcoco*.json`), "release" (TSV files of the research
            release), "unc" (the original files) or "hub" (lmms-lab's sets on the Hugging Face hub).
        scheme: How the splits were drawn; None takes the published one, which is "umd" for RefCOCOg
            and "unc" for the others.
        annotations: File or folder with the expressions, for the source "hub" a folder or hub id;
            None looks for the usual names in the root.
        coordinates: Frame of the boxes in the release's files: "pixels" of the image, or "qwen25",
            whole pixels of the image as Qwen2.5-VL resizes it.
        expressions: Published number of expressions, which `notes` compares; None for unknown.
        root: Folder of benchmark files; None takes the variable `LMUData`, else `~/LMUData`.
        photos: Folder of COCO's train2014, for "mdetr" and "unc"; None takes `train2014` or
            `coco/train2014` in the root.
        images_anywhere: Whether image paths in annotations may leave that folder, or the folder of
            the annotations for "release" and "hub".
    """

    task: ClassVar[Task] = "grounding"
    name: Name
    split: str
    source: Annotations = "mdetr"
    scheme: str | None = None
    annotations: str | None = None
    coordinates: release.Coordinates = "pixels"
    expressions: int | None = None
    root: str | None = None
    photos: str | None = None
    images_anywhere: bool = False

    def __post_init__(self) -> None:
        """Check choices and types.

        Raises:
            UserError: A field has another type or none of its values, or two do not fit.
        """
        for field, choices in (
            ("name", get_args(Name)),
            ("source", get_args(Annotations)),
            ("coordinates", get_args(release.Coordinates)),
        ):
            _one_of(field, getattr(self, field), choices)
        check_fields(self, "dataset.")
        if self.source == "hub":
            hf_rows.refuse_mixed(self.name, self.split)
        title, scheme, splits = PUBLISHED[self.name]
        _one_of("split", self.split, splits)
        if self.scheme == "google" or Path(self.annotations or "").name == "refs(google).p":
            raise UserError(
                "The google scheme divides objects, not images, so that images of its val are in "
                f"train, too; use the scheme {scheme} of {title}, as published tables do."
            )
        if self.scheme not in (None, scheme):
            raise UserError(f"{title} has the scheme {scheme}; got dataset.scheme={self.scheme}.")
        if self.coordinates != "pixels" and self.source != "release":
            raise UserError(
                f"dataset.coordinates={self.coordinates} is for dataset.source=release alone; "
                f"boxes of the source {self.source} are in pixels of the image."
            )

    @property
    def benchmark(self) -> str:
        """The split's name in the release and VLMEvalKit, as "RefCOCO+_testA"."""
        return f"{PUBLISHED[self.name][0]}_{self.split}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know about the files."""
        notes: tuple[str, ...] = getattr(self._source, "notes", ())
        if self.expressions in (None, len(self)):
            return notes
        return (
            f"The source {self.source} has {len(self):,} expressions of {self.benchmark}, "
            f"{self.expressions:,} are published.",
            *notes,
        )

    @cached_property
    def identity(self) -> str:
        """A sum over all expressions and boxes, or of the release's file."""
        if isinstance(self._source, release.ReleaseRows):
            return self._source.file.identity
        content = "\n".join(repr(self._source[number]) for number in range(len(self)))
        return hashlib.sha256(content.encode()).hexdigest()

    def sizes(self, index: int) -> tuple[tuple[int, int], ...]:
        """Width and height of the image as annotated; empty if they are not."""
        if isinstance(self._source, release.ReleaseRows):
            return self._source.file.sizes(index)
        size = self._source[index].size
        return (size,) if size else ()

    def sample_id(self, index: int) -> str:
        """The id of an expression, without its image."""
        return self._source[index].id

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        """One expression with its image.

        Raises:
            IndexError: There is no such expression.
            BrokenSample: It has no text or box, or its image cannot be had or is not the annotated.
            UserError: Its row cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}; got {index}.")
        expression = self._source[index]
        sample = Sample(
            id=expression.id,
            task=self.task,
            images=(),
            question=expression.text,
            answer=expression.box or "",
            benchmark=self.benchmark,
            labels={IMAGE_ID: expression.coco_id} if expression.coco_id else {},
        )
        try:
            if expression.broken:
                raise UserError(expression.broken)
            encoded = self._source.encoded_image(expression)
            name = encoded if isinstance(encoded, bytes) else str(encoded)
            sample = replace(sample, labels={IMAGE_ID: image_id(name), **sample.labels})
            image = _annotated_image(encoded, expression)
            beyond = {BOX_BEYOND_IMAGE: "yes"} if reaches_beyond(expression.box, image.size) else {}
            return replace(sample, images=(image,), labels={**sample.labels, **beyond})
        except Exception as error:  # whatever is wrong with one sample must not end a run
            raise BrokenSample(sample) from error

    @cached_property
    def _source(self) -> Source:
        root, anywhere = data_root(self.root), self.images_anywhere
        if self.source == "hub":
            source = self.annotations or hf_rows.usual_source(self.name, root)
            return hf_rows.read_hub(source, self.split, anywhere)
        if self.source == "release":
            names = release.file_names(self.benchmark, self.coordinates)
            path = find_file(self.annotations, root, names, release.CONVERTER)
            return release.read_release(path, self.coordinates, anywhere)
        if self.source == "unc":
            names = unc.file_names(self.name, PUBLISHED[self.name][1])
            path = find_file(self.annotations, root, names, unc.ARCHIVE)
            entries = unc.read_unc(path, self.split)
        else:
            names = mdetr.file_names(self.name, self.split)
            entries = mdetr.read_mdetr(find_file(self.annotations, root, names, mdetr.ARCHIVE))
        return ListedExpressions(entries, self._image_folder(root), anywhere)

    def _image_folder(self, root: Path) -> Path:
        if self.photos:
            return user_path(self.photos)
        usual = root / "train2014"
        nested = root / "coco" / "train2014"
        return nested if nested.is_dir() and not usual.is_dir() else usual


def reaches_beyond(box: Box | None, size: tuple[int, int]) -> bool:
    """Whether a box reaches beyond an image of that width and height by more than `TOLERANCE`.

    >>> reaches_beyond((0, 0, 10.5, 9), (10, 9)), reaches_beyond((-2, 0, 10, 9), (10, 9))
    (False, True)
    """
    x1, y1, x2, y2 = box or (0, 0, 0, 0)
    return min(x1, y1, size[0] - x2, size[1] - y2) < -TOLERANCE


def _annotated_image(encoded: bytes | Path, expression: Expression) -> Image.Image:
    """The decoded image.

    Raises:
        OSError: It cannot be decoded.
        UserError: It has another size than annotated.
    """
    image = decode(encoded)
    if expression.size not in (None, image.size):
        raise UserError(
            "Expected an image of {} x {} pixels, as annotated; got one of {} x {}.".format(
                *expression.size, *image.size
            )
        )
    return image


def _one_of(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"dataset.{field} must be one of {', '.join(choices)}; got {value!r}.")
