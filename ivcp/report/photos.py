"""The images of samples, read again from the dataset that a run's record names.

They are small JPEG files, one for each image of a sample, shared by all runs of the dataset. Where
the dataset is not, as on another machine, the overlays that a run saved of its first samples stand
in, and the tokens of other samples are drawn on a blank.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.types import BrokenSample
from ivcp.report.comparison import Entry
from ivcp.results.prediction import Prediction

SOURCES = "ivcp.datasets."
"""Modules whose classes a record may name: the package's own, which run nothing that they read."""
NOT_READ = ("_target_", "metric")
"""Settings of a dataset that are no arguments of it; a group's tasks have metrics."""
LONGEST_SIDE, QUALITY = 640, 80
MOST_IMAGES = 8
"""Images of a sample."""
MOST_BYTES = 9_000_000
"""Of all images of a page."""
MOST_PIXELS = 50_000_000
"""Of a saved overlay."""


@dataclass
class Photos:
    """The images of a page, each once.

    Attributes:
        files: JPEG files.
        problems: Why images are missing, one sentence each.
    """

    files: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, entry: Entry, predictions: Sequence[Prediction]) -> dict[str, list[int]]:
        """Read the images of a run's samples.

        Returns:
            Indices into `files` by the sample's id; samples whose images cannot be had are missing.
        """
        try:
            source = make_dataset(entry.info.config.get("dataset"))
        except UserError as error:
            self.problems.append(f"{entry.dataset}: samples are shown without images: {error}")
            return {}
        indices: dict[str, list[int]] = {}
        reason: object = "they are other samples now"
        for prediction in predictions:
            if sum(map(len, self.files)) > MOST_BYTES:
                reason = f"a page holds at most {MOST_BYTES // 1_000_000} MB of them"
                break
            try:
                sample = source[prediction.index]
                if sample.id == prediction.id:
                    images = sample.images[:MOST_IMAGES]
                    files = [to_jpeg(image) for image in images]
                    indices[sample.id] = [*range(len(self.files), len(self.files) + len(files))]
                    self.files += files
            except BrokenSample:
                continue  # it has none
            except Exception as error:  # whatever a file of the user's has in it
                reason = error
        missing = sum(prediction.id not in indices for prediction in predictions)
        if missing:
            self.problems.append(
                f"{entry.dataset}: the images of {missing} of {len(predictions)} samples could not "
                f"be read ({' '.join(str(reason).split())[:300]})."
            )
        return indices

    def add_saved(self, entry: Entry, index: int) -> list[int]:
        """Read the overlays that a run saved of a sample; indices into `files`."""
        paths = (entry.run.folder / "pictures").glob(f"{index:03d}_*.png")
        indices = []
        for path in sorted(paths, key=lambda path: (len(path.name), path.name))[:MOST_IMAGES]:
            if sum(map(len, self.files)) > MOST_BYTES:
                break
            try:
                self.files.append(to_jpeg(read_overlay(path)))
                indices.append(len(self.files) - 1)
            except UserError as error:
                self.problems.append(str(error))
        return indices


def read_overlay(path: Path) -> Image.Image:
    """A saved overlay.

    Raises:
        UserError: It cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise UserError(f"{path} has more than {MOST_PIXELS:,} pixels.")
                return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read.") from error


def make_dataset(config: object) -> Any:
    """The dataset of a recorded configuration; nothing is downloaded.

    Raises:
        UserError: The record names none, one that is not of this package, or one that is not here.
    """
    if not isinstance(config, Mapping) or "_target_" not in config:
        raise UserError("their run's record names no dataset.")
    try:
        source = _instantiate(config)
        if len(source) < 1:
            raise UserError("the dataset is empty.")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the dataset cannot be read ({error}).") from error
    return source


def _instantiate(value: Any) -> Any:
    """The object that nested settings with a `_target_` describe."""
    if isinstance(value, list):
        return [_instantiate(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    settings = {name: _instantiate(item) for name, item in value.items() if name not in NOT_READ}
    if "download" in settings:
        settings["download"] = False
    target = value.get("_target_")
    if target is None:
        return settings
    if not isinstance(target, str) or not target.startswith(SOURCES):
        raise UserError(f"their dataset, {target}, is not of this package.")
    module, _, name = target.rpartition(".")
    kind = getattr(import_module(module), name)
    if not isinstance(kind, type) or kind.__module__ != module:
        raise UserError(f"their dataset, {target}, is no class.")
    return kind(**settings)


def to_jpeg(image: Image.Image) -> bytes:
    """A small copy of an image."""
    small = image.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()
