"""InternVL 2.5 to 3.5: tiles of 256 tokens, thumbnail last, boxes in thousandths of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Box, Sample
from ivcp.core.video import Clip, Video
from ivcp.models import wording
from ivcp.models.encoding import images_of, interleaved, magnified
from ivcp.models.hub import HubFamily
from ivcp.models.placeholders import mismatch, repeats, runs
from ivcp.models.processor import ProcessedImages, ProcessedVideos, Processor
from ivcp.models.thinking import final_answer
from ivcp.models.towers import InternVLTower
from ivcp.models.video_frames import normalized

SYSTEM = (
    "你是书生·万象，英文名是InternVL，"  # noqa: RUF001
    "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
THINKING = (
    "You are an AI assistant that rigorously follows this response protocol:\n"
    "1. First, conduct a detailed analysis of the question. Consider different angles, potential "
    "solutions, and reason through the problem step-by-step. Enclose this entire thinking process "
    "within <think> and </think> tags.\n"
    "2. After the thinking section, provide a clear, concise, and direct answer to the user's "
    "question. Separate the answer from the think section with a newline.\n"
    "Ensure that the thinking process is thorough but remains focused on the query. The final "
    "answer should be standalone and not reference the thinking section."
)
"""Source: InternVL's documentation, "Thinking Mode" in the quick start of InternVL3.5."""

TILES = {
    "ChartQA_TEST": 12, "MMMU_DEV_VAL": 12, "DocVQA_VAL": 18, "InfoVQA_VAL": 24, "OCRBench": 24,
}  # fmt: skip
"""Most tiles of an image in datasets of small text, as VLMEvalKit evaluates InternVL."""
ALL_TILES = 64
"""Most tiles of all images of a sample."""
SMALL_TILE = 64
"""Pixels along a reduced tile; these are enough to find how the tiles are arranged."""


@dataclass(frozen=True, kw_only=True)
class InternVL(HubFamily):
    """InternVL 2.5, 3 or 3.5 of any size, in the library's format (checkpoints named `-hf`).

    Attributes, beside those of every family (`HubFamily`):
        min_tiles: Fewest tiles of an image, at least 1.
        max_tiles: Most tiles of an image; a thumbnail is added to two or more.
        more_tiles: Whether the datasets in `TILES` get the larger numbers there.
        thinking: Whether the system prompt asks the model to think before it answers, for which
            version 3.5 was trained; the answer is what follows `</think>`.
        frames: Frames of each video, each shown as an image of one tile; a clip with fewer frames
            shows them all. Source: lmms-eval, the middles of as many equal parts.
    """

    path: str | None = "OpenGVLab/InternVL3-8B-hf"
    min_tiles: int = 1
    max_tiles: int = 6
    more_tiles: bool = True
    thinking: bool = False
    frames: int = 32

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    decoder_types: ClassVar[tuple[str, ...]] = ("qwen3_moe",)
    architecture: ClassVar[str] = "InternVLForConditionalGeneration"
    image_processor: ClassVar[str] = "GotOcr2ImageProcessorPil"
    image_token: ClassVar[str] = "<IMG_CONTEXT>"
    video_token: ClassVar[str] = "<video>"
    frames_as_images: ClassVar[bool] = True
    type_advice: ClassVar[str] = (
        "an original checkpoint (internvl_chat) must be converted first, by "
        "convert_internvl_weights_to_hf.py in transformers' repository"
    )

    def __post_init__(self) -> None:
        """Check types and limits.

        Raises:
            UserError: A field has another type, or the limits are not in order.
        """
        super().__post_init__()
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise UserError(
                f"model.min_tiles must be at least 1 and at most model.max_tiles; got "
                f"{self.min_tiles} and {self.max_tiles}."
            )
        if self.frames < 1:
            raise UserError(f"model.frames must be at least 1; got {self.frames}.")

    @cached_property
    def _config(self) -> Any:
        config = super()._config
        text = config.text_config
        if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
            raise UserError(
                f"The model {self._source!r} has a language model of type {text.model_type!r}, "
                "whose layers with sliding windows cannot be pruned: choose a checkpoint on Qwen3, "
                "such as OpenGVLab/InternVL3_5-8B-HF."
            )
        return config

    def _images(self, config: Any) -> Any:
        images = super()._images(config)
        images.crop_to_patches = True
        images.min_patches, images.max_patches = self.min_tiles, self.max_tiles
        return images

    def format_question(self, sample: Sample) -> str:
        return wording.internvl(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: InternVL's conversation `internvl2_5`; several images are numbered.

        The text of a video ends with a newline.
        """
        images = [self.image_token] * len(sample.images)
        if len(images) > 1:
            images = [f"Image-{number}: {image}" for number, image in enumerate(images, 1)]
        videos = self.video_token * len(sample.videos)
        question = videos + "".join(f"{image}\n" for image in images) + self.question_text(sample)
        turns = (("system", THINKING if self.thinking else SYSTEM), ("user", question))
        chat = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
        return f"{chat}<|im_start|>assistant\n"

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        """Visual tokens of the usual number of tiles; a few datasets get more."""
        images, most = processor.images, self._most(self.max_tiles, len(sizes))
        tiles = sum(
            images.get_number_of_image_patches(height, width, {"max_patches": most})
            for width, height in sizes
        )
        return tiles * _side(processor.config) ** 2

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = images_of(samples)
        processed = [
            processor.images(
                magnified(sample), max_patches=self._limit(sample), return_tensors="pt"
            )
            for sample in samples
            if sample.images
        ]
        pixels = {name: torch.cat([each[name] for each in processed]) for name in processed[0]}
        size = _side(processor.config) ** 2
        texts = [
            f"<img>{self.image_token * (size * int(tiles))}</img>"
            for tiles in pixels["num_patches"]
        ]
        frames = [BoxFrame(1000, 1000, *image.size) for image in images]
        return ProcessedImages({"pixel_values": pixels["pixel_values"]}, texts, frames)

    def read_clip(self, processor: Processor, video: Video) -> Clip:
        """Frames squeezed to a tile."""
        side = processor.config.vision_config.image_size
        rows, columns = (side, side) if isinstance(side, int) else side
        return video.read(lambda total, _: middles(total, self.frames), lambda *_: (columns, rows))

    def process_videos(self, processor: Processor, clips: Sequence[Clip]) -> ProcessedVideos:
        """Source of the text: `build_video_prompt` of VLMEvalKit's InternVL."""
        images = processor.images
        image = f"<img>{self.image_token * _side(processor.config) ** 2}</img>"
        counts = [len(clip.frames) for clip in clips]
        texts = [
            "".join(f"Frame-{number}: {image}\n" for number in range(1, count + 1))
            for count in counts
        ]
        pixels = normalized(
            torch.cat([clip.frames for clip in clips]), images.image_mean, images.image_std
        )
        return ProcessedVideos({"pixel_values": pixels}, texts, counts)

    def joined_inputs(
        self, samples: Sequence[Sample], images: ProcessedImages, videos: ProcessedVideos
    ) -> dict[str, Tensor]:
        if videos.frames is None:
            return images.inputs
        frames = torch.split(videos.inputs["pixel_values"], videos.frames)
        tiles: Sequence[Tensor] = ()
        if images.texts:
            tokens = [text.count(self.image_token) for text in images.texts]
            pixels = images.inputs["pixel_values"]
            tiles = torch.split(pixels, [len(pixels) * count // sum(tokens) for count in tokens])
        return {"pixel_values": interleaved(samples, tiles, frames)}

    def _limit(self, sample: Sample) -> int:
        """Most tiles of one image of a sample."""
        of_benchmark = TILES.get(sample.benchmark, 0) if self.more_tiles else 0
        return self._most(max(self.max_tiles, of_benchmark), len(sample.images))

    def _most(self, tiles: int, images: int) -> int:
        return max(self.min_tiles, min(tiles, ALL_TILES // images))

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        texts = super().decode(processor, tokens)
        return [final_answer(text) for text in texts] if self.thinking else texts

    def parse_box(self, text: str) -> Box | None:
        """The first bracketed list of four numbers; numbers that sum to less than 4 are fractions.

        Source: the IVC-Prune release's InternVL parser.
        """
        box = super().parse_box(text)
        if box is None or sum(box) >= 4:
            return box
        x1, y1, x2, y2 = (1000 * number for number in box)
        return x1, y1, x2, y2

    def tower(self, model: nn.Module) -> VisionTower:
        return InternVLTower(self.entry(model))

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Reduced tiles, from which `arrangement` finds how they make up the image."""
        pixels = inputs.get("pixel_values")
        if pixels is None:
            return {}
        edge = min(SMALL_TILE, pixels.shape[-1])
        return {"small_tiles": adaptive_avg_pool2d(pixels.float(), edge)}

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        config: Any = model.config
        side, pixels = _side(config), inputs.get("small_tiles")
        size = side * side
        found_runs = [runs(row, config.image_token_id) for row in rows]
        lengths = [length for of_row in found_runs for _, length in of_row]
        in_prompts = sum(lengths)
        in_inputs = in_prompts if pixels is None else len(pixels) * size
        if any(length % size for length in lengths):
            raise mismatch(in_prompts, in_inputs, "image tokens")
        times = repeats(len(rows), in_prompts, in_inputs, "image tokens")
        layouts, tile = [], 0
        for row, of_row in list(zip(rows, found_runs, strict=True))[::times]:
            images, marks = [], []
            for start, length in of_row:
                marks += [start - 1, start + length]  # <img> and </img>
                count = length // size
                tiles = None if pixels is None else pixels[tile : tile + count]
                images.append(replace(_tiled(start, count, side, tiles), number=tile))
                tile += count
            markers = torch.tensor([mark for mark in marks if 0 <= mark < len(row)]).long()
            layouts += [PromptLayout(len(row), tuple(images), markers)] * times
        return layouts


def middles(total: int, count: int) -> list[int]:
    """The frames in the middle of `count` equal parts of `total` frames; all of fewer frames.

    >>> middles(100, 4)
    [12, 37, 62, 87]
    """
    count = min(count, total)
    return [int(total / count * (part + 0.5)) for part in range(count)]


def _side(config: Any) -> int:
    """Visual tokens along the side of a tile."""
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    size, patch = (edge if isinstance(edge, int) else edge[0] for edge in (size, patch))
    return int(size // patch * config.downsample_ratio)


def _tiled(start: int, count: int, side: int, pixels: Tensor | None) -> ImageLayout:
    """Grids of an image of `count` tiles, thumbnail included."""
    if count == 1:
        return ImageLayout((Grid(start, side, side),))
    columns, rows = arrangement(count - 1, pixels)
    tiles = [
        Grid(
            start + number * side * side, side, side, "tile",
            area=(
                number % columns / columns, number // columns / rows,
                (number % columns + 1) / columns, (number // columns + 1) / rows,
            ),
        )
        for number in range(count - 1)
    ]  # fmt: skip
    return ImageLayout((*tiles, Grid(start + (count - 1) * side * side, side, side, "thumbnail")))


def arrangement(tiles: int, pixels: Tensor | None) -> tuple[int, int]:
    """(columns, rows) in which tiles make up the image that the thumbnail shows.

    The model's inputs do not contain the arrangement. But only in the right one do the joined tiles
    look like the thumbnail. For an image of one colour it is the arrangement nearest to a square.

    Args:
        tiles: Number of tiles, without the thumbnail.
        pixels: (tiles + 1, 3, N, N) pixel values, thumbnail last.

    Raises:
        UserError: There are several arrangements and no pixels.
    """
    orders = [(n, tiles // n) for n in range(tiles, 0, -1) if tiles % n == 0]
    orders.sort(key=lambda order: abs(order[0] - order[1]))
    if len(orders) == 1:
        return orders[0]
    if pixels is None:
        raise UserError(
            f"How the {tiles} tiles of an image are arranged shows in their pixels alone: pass "
            "pixel_values, or encode them inside pruned(...)."
        )
    errors = []
    small = adaptive_avg_pool2d(pixels[:-1].float(), 8)  # (tiles, 3, 8, 8)
    for columns, rows in orders:
        joined = small.reshape(rows, columns, 3, 8, 8).permute(2, 0, 3, 1, 4)
        joined = joined.reshape(3, 8 * rows, 8 * columns)
        thumbnail = adaptive_avg_pool2d(pixels[-1].float(), (8 * rows, 8 * columns))
        errors.append((joined - thumbnail).square().mean())
    error = torch.stack(errors)
    return orders[int((error <= error.min() + 1e-6).int().argmax())]
