"""What all Qwen-VL families share: chat, images, videos and layouts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Encoded, Inputs, Rows
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.pixels import to_rgb
from ivcp.core.tower import VisionTower
from ivcp.core.types import Sample
from ivcp.core.video import Clip, Video
from ivcp.models import checkpoint, wording
from ivcp.models.encoding import images_of
from ivcp.models.hub import HubFamily
from ivcp.models.pixel_limits import check_limits
from ivcp.models.processor import ProcessedImages, ProcessedVideos, Processor
from ivcp.models.qwen_layouts import check_types, run_layouts
from ivcp.models.towers_qwen import QwenTower
from ivcp.models.video_frames import (
    PAIR,
    check_frames,
    fitted_size,
    normalized,
    pairs_of_frames,
    patches,
)
from ivcp.models.video_positions import video_positions


@dataclass(frozen=True, kw_only=True)
class QwenFamily(HubFamily):
    """Loading, chat, images and layout of Qwen-VL.

    Attributes, beside those of every family (`HubFamily`):
        min_pixels: Images with fewer pixels are enlarged; None keeps the checkpoint's value.
        max_pixels: Images with more pixels are shrunk, at least one visual token's; likewise.
        frames: Frames of each video, rounded to an even number; None to go by `fps`.
        fps: Frames a second of each video.
        min_frames: Fewest frames by `fps`.
        max_frames: Most frames by `fps`.
        min_frame_tokens: Frame pairs with fewer visual tokens are enlarged.
        max_frame_tokens: Frame pairs with more visual tokens are shrunk.
        max_video_tokens: Most visual tokens of a video, as far as its frame pairs can be shrunk: to
            1.05 times the least.

    Source of the video settings: qwen-vl-utils 0.0.14.

    `times_as_positions` tells whether a model numbers the moments of a video in time, instead of
    having their times as text.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    frames: int | None = None
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    min_frame_tokens: int = 128
    max_frame_tokens: int = 768
    max_video_tokens: int = 115_200

    image_processor: ClassVar[str] = "Qwen2VLImageProcessorPil"
    image_token: ClassVar[str] = "<|image_pad|>"
    video_token: ClassVar[str] = "<|video_pad|>"
    takes_videos: ClassVar[bool] = True
    times_as_positions: ClassVar[bool] = False
    begins_with_bos: ClassVar[bool] = False
    counted_frames: ClassVar[int] = 1
    """As how many frames the image processor counts an image when it applies its limits."""
    image_marks: ClassVar[tuple[str, str]] = ("<|vision_start|>", "<|vision_end|>")
    """Tokens around an image."""

    def __post_init__(self) -> None:
        """Check types and limits.

        Raises:
            UserError: A field has another type, or the limits are not in order.
        """
        super().__post_init__()
        check_limits(self.min_pixels, self.max_pixels)
        check_frames(self.frames, self.fps, self.min_frames, self.max_frames)
        if not 1 <= self.min_frame_tokens <= self.max_frame_tokens <= self.max_video_tokens:
            raise UserError(
                "model.min_frame_tokens must be at least 1 and at most model.max_frame_tokens, and "
                f"that at most model.max_video_tokens; got {self.min_frame_tokens}, "
                f"{self.max_frame_tokens} and {self.max_video_tokens}."
            )

    def _images(self, config: Any) -> Any:
        images = super()._images(config)
        size, count = dict(images.size), self.counted_frames
        least = size["shortest_edge"] // count if self.min_pixels is None else self.min_pixels
        most = size["longest_edge"] // count if self.max_pixels is None else self.max_pixels
        check_limits(least, most, images.patch_size * images.merge_size)
        images.size = {"shortest_edge": least * count, "longest_edge": most * count}
        return images

    def _tokenizer(self, config: Any) -> Any:
        tokenizer = super()._tokenizer(config)
        tokenizer.chat_template = checkpoint.chat_template(tokenizer, self._source)
        self._check_template(tokenizer)
        return tokenizer

    def _check_template(self, tokenizer: Any) -> None:
        """Refuse a chat template that makes no prompt, or one without a place for an image.

        Raises:
            UserError: It does.
        """
        sample = Sample(
            id="", task="open_ended", images=(Image.new("RGB", (1, 1)),), question="", answer="",
            verbatim=True,
        )  # fmt: skip
        try:
            places = self.prompt(tokenizer, sample).count(self.image_token)
            problem = f"gives {places} places to one image"
        except TemplateError as error:
            places, problem = 0, f"is damaged ({error})"
        if places != 1:
            raise UserError(
                f"The chat template of the model {self._source!r} {problem}: copy it from the "
                "checkpoint that this one was trained from."
            )

    def format_question(self, sample: Sample) -> str:
        return wording.qwen(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        content = [
            *({"type": "video"} for _ in sample.videos),
            *({"type": "image"} for _ in sample.images),
            {"type": "text", "text": self.question_text(sample)},
        ]
        prompt: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
            **self.template_settings(),
        )
        return prompt

    def template_settings(self) -> dict[str, Any]:
        """Variables of the chat template that the family's fields set."""
        return {}

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        """Visual tokens of the images; an image that is too thin to be resized counts as none."""
        images, patches = processor.images, 0
        for width, height in sizes:
            with suppress(ValueError):
                patches += images.get_number_of_image_patches(height, width, {})
        return patches / images.merge_size**2

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = images_of(samples)
        pixels = processor.images(images, return_tensors="pt")
        merge, patch = processor.images.merge_size, processor.images.patch_size
        texts, frames = [], []
        for image, (_, rows, columns) in zip(
            images, pixels["image_grid_thw"].tolist(), strict=True
        ):
            texts.append(self.image_token * (rows * columns // merge**2))
            frames.append(self.frame(columns * patch, rows * patch, image.size))
        return ProcessedImages(dict(pixels), texts, frames)

    def read_clip(self, processor: Processor, video: Video) -> Clip:
        cell = processor.images.patch_size * processor.images.merge_size
        least, most = self.min_frame_tokens, self.max_frame_tokens

        def size(frames: int, width: int, height: int) -> tuple[int, int]:
            tokens = max(min(most, self.max_video_tokens * PAIR / frames), 1.05 * least)
            limits = {"min_pixels": least * cell**2, "max_pixels": int(tokens * cell**2)}
            return fitted_size(width, height, cell=cell, **limits)

        return video.read(self.choose_frames, size)

    def choose_frames(self, total: int, rate: float) -> list[int]:
        """Ascending indices of the frames that the model is shown.

        Args:
            total: Frames of the clip.
            rate: Frames a second of the clip.
        """
        return pairs_of_frames(
            total, rate, frames=self.frames, fps=self.fps, least=self.min_frames,
            most=self.max_frames,
        )  # fmt: skip

    def process_videos(self, processor: Processor, clips: Sequence[Clip]) -> ProcessedVideos:
        images = processor.images
        pixels, sizes, texts = [], [], []
        for clip in clips:
            frames = normalized(clip.frames, images.image_mean, images.image_std)
            of_clip, size = patches(frames, images.patch_size, images.merge_size)
            pixels.append(of_clip)
            sizes.append(size)
            tokens = size[1] * size[2] // images.merge_size**2
            texts.append(self.video_text(clip, size[0], tokens))
        inputs = {
            "pixel_values_videos": torch.cat(pixels),
            "video_grid_thw": torch.tensor(sizes),
            **self.video_times(clips),
        }
        return ProcessedVideos(inputs, texts)

    def video_text(self, clip: Clip, moments: int, tokens: int) -> str:
        """The text of a video in the prompt.

        Args:
            clip: Its frames.
            moments: Number of frame pairs.
            tokens: Visual tokens of each.
        """
        return "<|video_pad|>" * (moments * tokens)

    def video_times(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """The input that tells the model how much time passes in each video; none by default."""
        return {}

    def served_image(
        self, processor: Processor, image: Image.Image, layout: ImageLayout
    ) -> Image.Image:
        """The image at the size at which the model sees it, resized as the processor does.

        Args:
            processor: As `processor` gives it.
            image: The image.
            layout: Its visual tokens.
        """
        (grid,), edge = layout.grids, processor.images.patch_size * processor.images.merge_size
        size = grid.columns * edge, grid.rows * edge
        return to_rgb(image).resize(size, Image.Resampling(processor.images.resample))

    @abstractmethod
    def frame(self, width: int, height: int, size: tuple[int, int]) -> BoxFrame:
        """Frame of boxes for an image of `size` that was resized to `width` x `height` pixels."""

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        encoded = super().encode(processor, samples)
        inputs = encoded.inputs
        types = self.token_types(processor.tokenizer, inputs["input_ids"])
        inputs["mm_token_type_ids"] = types
        if self.times_as_positions and "video_grid_thw" in inputs:
            images, videos = (
                self._token_grids(processor, inputs.get(f"{kind}_grid_thw"))
                for kind in ("image", "video")
            )
            steps = self.video_steps(processor, inputs)
            mask = inputs["attention_mask"]
            inputs["position_ids"] = video_positions(types, mask, images, videos, steps)
        return encoded

    def _token_grids(self, processor: Processor, patches: Tensor | None) -> list[list[int]]:
        """Moments, rows and columns of visual tokens of each image or video."""
        if patches is None:
            return []
        merge = processor.images.merge_size
        return (patches // torch.tensor([1, merge, merge])).tolist()

    def video_steps(self, processor: Processor, inputs: Inputs) -> Sequence[float]:
        """What the position of tokens in time grows by, from one moment of each video to the next.

        Args:
            processor: As `processor` gives it.
            inputs: What `process_videos` makes, among other inputs.
        """
        return [1.0] * len(inputs["video_grid_thw"])

    def token_types(self, tokenizer: Any, ids: Tensor) -> Tensor:
        """(B, S) 1 for tokens of images, 2 for tokens of videos, 0 for text."""
        to_id = tokenizer.convert_tokens_to_ids
        image, video = (ids == to_id(f"<|{kind}_pad|>") for kind in ("image", "video"))
        return image.int() + 2 * video.int()

    def marker_ids(self, config: Any) -> list[int]:
        """Ids of the tokens around images and videos."""
        return [config.vision_start_token_id, config.vision_end_token_id]

    def vision(self, model: nn.Module) -> nn.Module:
        return self.entry(model).visual  # type: ignore[return-value]

    def position_axes(self, model: nn.Module) -> int:
        return 3

    def tower(self, model: nn.Module) -> VisionTower:
        return QwenTower(self.entry(model))

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        names = ("image_grid_thw", "video_grid_thw")
        return {name: inputs[name] for name in names if inputs.get(name) is not None}

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        config: Any = model.config
        tokens = {"image": config.image_token_id, "video": config.video_token_id}
        if "mm_token_type_ids" not in inputs:
            check_types(rows, positions, list(tokens.values()))
        sizes = {kind: inputs.get(f"{kind}_grid_thw") for kind in tokens}
        edges = {
            tokens[kind]: [] if grids is None else self._run_grids(kind, grids)
            for kind, grids in sizes.items()
        }
        return run_layouts(
            rows, positions, {token: kind for kind, token in tokens.items()}, edges,
            merge=config.vision_config.spatial_merge_size, marks=self.marker_ids(config),
        )  # fmt: skip

    def _run_grids(self, kind: str, grids: Tensor) -> list[tuple[int, int]]:
        """(rows, columns) of patches of each run of visual tokens in the prompt.

        Args:
            kind: "image" or "video".
            grids: (N, 3) times, rows and columns of patches of each image or video.
        """
        return [(rows, columns) for _, rows, columns in grids.tolist()]
