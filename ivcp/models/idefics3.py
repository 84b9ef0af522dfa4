"""Idefics3, and SmolVLM of its model type: tiles row by row, the global view last, no boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Sample, Task
from ivcp.models import idefics_wording as words
from ivcp.models.encoding import images_of
from ivcp.models.hub import HubFamily
from ivcp.models.placeholders import mismatch, repeats, runs
from ivcp.models.processor import ProcessedImages, Processor
from ivcp.models.towers_idefics import Idefics3Tower, shown_views

FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"
FAINT = 1e-4
"""A pixel value that nobody can tell from zero, in all of the model's number formats."""


@dataclass(frozen=True, kw_only=True)
class Idefics3(HubFamily):
    """Idefics3, or SmolVLM whose checkpoint is of the type `idefics3`.

    No grounding format was published: questions are worded as for LLaVA, and boxes are read as
    fractions of the image.

    Attributes, beside those of every family (`HubFamily`):
        split: Whether an image is shown in tiles, too, instead of the global view alone.
        longest_edge: Pixels of the longer edge of an image before it is cut into tiles; None keeps
            the checkpoint's value, 4 tiles.
        rules: Whether questions about charts, documents and texts come with rules for the answer,
            as VLMEvalKit words them for SmolVLM.
    """

    path: str | None = "HuggingFaceM4/Idefics3-8B-Llama3"
    split: bool = True
    longest_edge: int | None = None
    rules: bool = False

    model_types: ClassVar[tuple[str, ...]] = ("idefics3",)
    architecture: ClassVar[str] = "Idefics3ForConditionalGeneration"
    image_processor: ClassVar[str] = "Idefics3ImageProcessorPil"
    image_token: ClassVar[str] = "<image>"

    def __post_init__(self) -> None:
        """Check types and limits.

        Raises:
            UserError: A field has another type, or `longest_edge` is no size.
        """
        super().__post_init__()
        if self.longest_edge is not None and self.longest_edge < 1:
            raise UserError(
                f"model.longest_edge must be at least 1 (null takes the checkpoint's own); got "
                f"{self.longest_edge}."
            )

    def _images(self, config: Any) -> Any:
        images = super()._images(config)
        images.do_image_splitting = self.split
        if self.longest_edge is not None:
            images.size = {"longest_edge": self.longest_edge}
        return images

    def remarks(self, task: Task) -> tuple[str, ...]:
        if task != "grounding":
            return ()
        return (
            f"{type(self).__name__} was not trained to write boxes, and no format is published: a "
            "score of grounding says nothing about pruning.",
        )

    def format_question(self, sample: Sample) -> str:
        return words.question(sample, self.rules)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: the chat template of Idefics3 and SmolVLM, and VLMEvalKit for MMMU."""
        images = [self.image_token] * len(sample.images)
        if sample.benchmark == words.MMMU and not sample.verbatim:
            images = [f"<image {number}>:{image}\n" for number, image in enumerate(images, 1)]
            images.insert(0, " Question: ")
        videos = [f" {self.video_token}", *[self.video_token] * len(sample.videos[1:])]
        visual = "".join([*videos[: len(sample.videos)], *images]) or " "
        text = visual + self.question_text(sample)
        return f"User:{text}<end_of_utterance>\nAssistant:{words.answer_start(sample)}"

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        grids = [tile_grid(processor.images, width, height) for width, height in sizes]
        return sum(rows * columns + 1 for rows, columns in grids) * side_of(processor.config) ** 2

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = images_of(samples)
        size = side_of(processor.config) ** 2
        pixels, texts = [], []
        for image in images:
            processed = processor.images([[image]], return_row_col_info=True, return_tensors="pt")
            pixels.append(processed["pixel_values"][0])
            ((rows,),), ((columns,),) = processed["rows"], processed["cols"]
            texts.append(self.image_text(rows, columns, size))
        views = visible(torch.cat(pixels))
        frames = [BoxFrame(1, 1, *image.size) for image in images]
        return ProcessedImages({"pixel_values": views[:, None]}, texts, frames)

    def image_text(self, rows: int, columns: int, tokens: int) -> str:
        """The text of an image in the prompt.

        Source: `SmolVLMProcessor` of transformers 5.23.

        Args:
            rows: Rows of tiles, 0 for an image that is one view.
            columns: Columns of tiles, likewise.
            tokens: Visual tokens of a view.
        """
        view = self.image_token * tokens
        tiles = "".join(
            "".join(f"{FAKE}<row_{row}_col_{column}>{view}" for column in range(1, columns + 1))
            + "\n"
            for row in range(1, rows + 1)
        )
        return f"{tiles}{chr(10) if tiles else ''}{FAKE}{GLOBAL}{view}{FAKE}"

    def decoder(self, model: nn.Module) -> nn.Module:
        return self.entry(model).text_model  # type: ignore[return-value]

    def vision(self, model: nn.Module) -> nn.Module:
        return self.entry(model).vision_model  # type: ignore[return-value]

    def tower(self, model: nn.Module) -> VisionTower:
        return Idefics3Tower(self.entry(model))

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Which views are shown, instead of their pixels."""
        pixels = inputs.get("pixel_values")
        return {} if pixels is None else {"pixel_values": shown_views(pixels)}

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        config: Any = model.config
        side = side_of(config)
        starts = [view_starts(row, config.image_token_id, side * side) for row in rows]
        in_prompts = sum(map(len, starts)) * side * side
        in_inputs = in_prompts
        if "pixel_values" in inputs:
            in_inputs = int(shown_views(inputs["pixel_values"]).sum()) * side * side
        times = repeats(len(rows), in_prompts, in_inputs, "image tokens")
        layouts, number = [], 0
        for row, of_row in list(zip(rows, starts, strict=True))[::times]:
            images, markers = [], []
            for image, around in found_images(row, of_row, side):
                images.append(replace(image, number=number))
                number += len(image.grids)
                markers.append(around)
            marked = torch.cat(markers) if markers else torch.empty(0, dtype=torch.long)
            layouts += [PromptLayout(len(row), tuple(images), marked)] * times
        return layouts


def side_of(config: Any) -> int:
    """Visual tokens along the side of a view."""
    vision = config.vision_config
    return int(vision.image_size // vision.patch_size // config.scale_factor)


def visible(views: Tensor) -> Tensor:
    """Views without one of zeros only, which the library would take for padding.

    Args:
        views: (N, 3, H, W) pixel values, changed in place.
    """
    hidden = ~shown_views(views[:, None])[:, 0]
    views[hidden, 0, 0, 0] = FAINT
    return views


def tile_grid(images: Any, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles of an image; 0 and 0 if the global view is all.

    Source: `resize_for_vision_encoder` of the image processor, which resizes the image.

    Args:
        images: The image processor.
        width: Of the image, in pixels.
        height: Likewise.
    """
    from transformers.models.idefics3 import image_processing_pil_idefics3 as library

    if not images.do_image_splitting:
        return 0, 0
    if images.do_resize:
        empty = np.broadcast_to(np.uint8(0), (3, height, width))  # takes no memory
        longest = dict(images.size)["longest_edge"]
        height, width = library.get_resize_output_image_size(empty, longest)
    tile, ratio = images.max_image_size["longest_edge"], width / height
    if width >= height:
        columns = math.ceil(width / tile)
        rows = math.ceil(int(columns * tile / ratio) / tile)
    else:
        rows = math.ceil(height / tile)
        columns = math.ceil(int(rows * tile * ratio) / tile)
    return (0, 0) if rows * columns == 1 else (rows, columns)


def view_starts(row: Tensor, token: int, size: int) -> list[int]:
    """Index of the token at which each view of a row begins.

    Raises:
        UserError: A run of image tokens is no view.
    """
    views = runs(row, token)
    if any(length != size for _, length in views):
        tokens = sum(length for _, length in views)
        raise mismatch(tokens, tokens // size * size, "image tokens")
    return [start for start, _ in views]


def found_images(
    row: Tensor, starts: Sequence[int], side: int
) -> Iterator[tuple[ImageLayout, Tensor]]:
    """The images of a row, each with the prompt indices of the markers inside and around it.

    The ids of markers are not in the configuration, and some tokenizers cut `<row_1_col_1>` into
    pieces. But the last view of a prompt is global, and it is followed by the marker that also
    precedes each view. All global views have what stands between marker and view in common. A tile
    that is not followed by the marker is the last of its row.

    Args:
        row: (S,) token ids.
        starts: Index of each view's first token.
        side: Visual tokens along the side of a view.

    Raises:
        UserError: The markers are absent.
    """
    size = side * side
    if not starts:
        return
    marker, opens = row[(starts[-1] + size) % len(row)], []
    for view, start in enumerate(starts):
        behind = starts[view - 1] + size if view else 0
        places = (row[behind:start] == marker).nonzero()[:, 0]
        if not len(places):
            raise mismatch(len(starts) * size, 0, "image tokens with markers around them")
        opens.append(behind + int(places[-1]))
    name = row[opens[-1] : starts[-1]]
    begin = 0
    for view, (start, opened) in enumerate(zip(starts, opens, strict=True)):
        if torch.equal(row[opened:start], name):
            image = arranged(row, starts[begin : view + 1], side, marker)
            around = torch.arange(opens[begin], min(start + size + 1, len(row)))
            yield image, around[~torch.isin(around, image.tokens)]
            begin = view + 1


def arranged(row: Tensor, starts: Sequence[int], side: int, marker: Tensor) -> ImageLayout:
    """The layout of an image.

    Args:
        row: (S,) token ids.
        starts: Index of the first token of each view, the global view last.
        side: Visual tokens along the side of a view.
        marker: Id of the token that precedes and follows views.
    """
    *tiles, last = starts
    if not tiles:
        return ImageLayout((Grid(last, side, side),))
    ends = [number for number, start in enumerate(tiles, 1) if row[start + side * side] != marker]
    columns = ends[0] if ends else len(tiles)
    rows = math.ceil(len(tiles) / columns)
    grids = [
        Grid(
            start, side, side, "tile",
            area=(
                number % columns / columns, number // columns / rows,
                (number % columns + 1) / columns, (number // columns + 1) / rows,
            ),
        )
        for number, start in enumerate(tiles)
    ]  # fmt: skip
    return ImageLayout((*grids, Grid(last, side, side, "thumbnail")))
