"""RefCOCO, RefCOCO+ and RefCOCOg: locate the object in a photo that an expression refers to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, get_args

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.types import BrokenSample, Sample, Task
from ivcp.datasets import hub, mdetr, release, unc
from ivcp.datasets.expressions import Expression, Listed, Source, find_file
from ivcp.datasets.pixels import decode
from ivcp.datasets.places import data_root

Name = Literal["refcoco", "refcocoplus", "refcocog"]
Annotations = Literal["mdetr", "release", "unc", "hub"]

PUBLISHED: dict[str, tuple[str, str, tuple[str, ...]]] = {  # title, scheme, splits
    "refcoco": ("RefCOCO", "unc", ("val", "testA", "testB")),
    "refcocoplus": ("RefCOCO+", "unc", ("val", "testA", "testB")),
    "refcocog": ("RefCOCOg", "umd", ("val", "test")),
}


@dataclass(frozen=True, kw_only=True)
class RefCOCO:
    """One published split; a sample is an expression, its answer a box in pixels of the photo.

    Expressions are asked as the source has them. A photo that is absent, damaged or of another size
    than annotated makes a `BrokenSample`. Nothing is read before the first `len` or index. Label
    "coco_id": COCO's number of the photo, where the source tells.

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
        coordinates: Frame of the boxes in the release's files: "pixels" of the photo, or "qwen25",
            whole pixels of the photo as Qwen2.5-VL resizes it.
        expressions: Published number of expressions, which `notes` compares; None for unknown.
        root: Folder of benchmark files; None takes the variable `LMUData`, else `~/LMUData`.
        photos: Folder of COCO's train2014, for "mdetr" and "unc"; None takes `train2014` or
            `coco/train2014` in the root.
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

    def __post_init__(self) -> None:
        """Check the choices.

        Raises:
            UserError: A field is not one of its values, or two do not fit.
        """
        for field, known in (
            ("name", get_args(Name)),
            ("source", get_args(Annotations)),
            ("coordinates", get_args(release.Coordinates)),
        ):
            _one_of(field, getattr(self, field), known)
        if self.source == "hub":
            hub.refuse_mixed(self.name, self.split)
        title, scheme, splits = PUBLISHED[self.name]
        _one_of("split", self.split, splits)
        if self.scheme == "google" or Path(self.annotations or "").name == "refs(google).p":
            raise UserError(
                "The google scheme divides objects, not photos, so that photos of its val are in "
                f"train, too; use the scheme {scheme} of {title}, as published tables do."
            )
        if self.scheme not in (None, scheme):
            raise UserError(f"{title} has the scheme {scheme}; got dataset.scheme={self.scheme}.")
        if self.coordinates != "pixels" and self.source != "release":
            raise UserError(
                f"dataset.coordinates={self.coordinates} is for dataset.source=release alone; "
                f"boxes of the source {self.source} are in pixels of the photo."
            )

    @property
    def benchmark(self) -> str:
        """The split's name in the release and VLMEvalKit, as "RefCOCO+_testA"."""
        return f"{PUBLISHED[self.name][0]}_{self.split}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know about the files."""
        told: tuple[str, ...] = getattr(self._source, "notes", ())
        if self.expressions in (None, len(self)):
            return told
        return (
            f"The source {self.source} has {len(self):,} expressions of {self.benchmark}, "
            f"{self.expressions:,} are published.",
            *told,
        )

    @cached_property
    def identity(self) -> str:
        """A sum over all expressions and boxes, or of the release's file."""
        if isinstance(self._source, release.ReleaseRows):
            return self._source.file.identity
        told = "\n".join(repr(self._source[number]) for number in range(len(self)))
        return hashlib.sha256(told.encode()).hexdigest()

    def sizes(self, index: int) -> tuple[tuple[int, int], ...]:
        """Width and height of the photo as annotated; empty if they are not."""
        if isinstance(self._source, release.ReleaseRows):
            return self._source.file.sizes(index)
        size = self._source[index].size
        return (size,) if size else ()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        """One expression with its photo.

        Raises:
            IndexError: There is no such expression.
            BrokenSample: It has no box, or its photo cannot be had or is not the annotated one.
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
            labels={"coco_id": expression.coco_id} if expression.coco_id else {},
        )
        try:
            if expression.broken:
                raise UserError(expression.broken)
            return replace(sample, images=(self._photo(expression),))
        except (OSError, UserError) as error:
            raise BrokenSample(sample) from error

    def _photo(self, expression: Expression) -> Image.Image:
        photo = decode(self._source.picture(expression))
        if expression.size not in (None, photo.size):
            raise UserError(
                "Expected a photo of {} x {} pixels, as annotated; got one of {} x {}.".format(
                    *expression.size, *photo.size
                )
            )
        return photo

    @cached_property
    def _source(self) -> Source:
        root = data_root(self.root)
        if self.source == "hub":
            return hub.read_hub(self.annotations or hub.usual_place(self.name, root), self.split)
        if self.source == "release":
            names = release.file_names(self.benchmark, self.coordinates)
            path = find_file(self.annotations, root, names, release.CONVERTER)
            return release.read_release(path, self.coordinates)
        if self.source == "unc":
            names = unc.file_names(self.name, PUBLISHED[self.name][1])
            entries = unc.read_unc(
                find_file(self.annotations, root, names, unc.ARCHIVE), self.split
            )
        else:
            names = mdetr.file_names(self.name, self.split)
            entries = mdetr.read_mdetr(find_file(self.annotations, root, names, mdetr.ARCHIVE))
        return Listed(entries, self._photo_folder(root))

    def _photo_folder(self, root: Path) -> Path:
        if self.photos:
            return Path(self.photos).expanduser()
        usual = root / "train2014"
        nested = root / "coco" / "train2014"
        return nested if nested.is_dir() and not usual.is_dir() else usual


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"dataset.{field} must be one of {', '.join(known)}; got {value!r}.")
