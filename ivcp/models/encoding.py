"""From samples to model inputs: prompts, images and videos of a batch."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Encoded, ModelFamily
from ivcp.core.printable import check_characters
from ivcp.core.types import Box, Sample
from ivcp.core.video import Clip, Video
from ivcp.models.processor import ProcessedImages, ProcessedVideos, Processor

FULL_AREA: Box = (0.0, 0.0, 1.0, 1.0)


class PromptFamily(ModelFamily):
    """A family that words prompts with placeholders and fills them with visual tokens.

    Attributes:
        image_token: Placeholder of an image.
        video_token: Placeholder of a video; empty for models that take images only.
        begins_with_bos: Whether prompts begin with the tokenizer's BOS, if it has one.
    """

    image_token: ClassVar[str]
    video_token: ClassVar[str] = ""
    begins_with_bos: ClassVar[bool] = True

    @property
    @abstractmethod
    def source(self) -> str:
        """Folder or hub id of the checkpoint."""

    @abstractmethod
    def format_question(self, sample: Sample) -> str:
        """The question in the family's wording, without images."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Texts that stand for visual tokens, so that no question may contain them."""
        return tuple(filter(None, (self.image_token, self.video_token)))

    def question_text(self, sample: Sample) -> str:
        """The text of the prompt beside the images."""
        return sample.question if sample.verbatim else self.format_question(sample)

    @abstractmethod
    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """The complete prompt, with a `video_token` for each video and an `image_token` each image.

        A family may show the images of a prompt in another order than the sample's.
        """

    @abstractmethod
    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        """All images of a batch, in order, processed; there is at least one.

        Raises:
            ValueError: An image cannot be resized.
        """

    def read_clip(self, processor: Processor, video: Video) -> Clip:
        """The frames of a video that the model is shown, in the size in which it sees them.

        Raises:
            UserError: The model takes images only.
            OSError: They cannot be read.
            ValueError: They cannot be resized.
        """
        raise UserError(
            f"{type(self).__name__} takes images only, but a sample holds a video: choose a model "
            "that takes videos, such as model=qwen25vl."
        )

    def process_videos(self, processor: Processor, clips: Sequence[Clip]) -> ProcessedVideos:
        """All videos of a batch, in order, processed; there is at least one."""
        raise NotImplementedError(f"{type(self).__name__} takes images only")

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        for sample in samples:
            check_characters(sample)
            for image in sample.images:
                if not min(image.size):
                    raise UserError(
                        f"An image must have at least 1 x 1 pixels; sample {sample.id!r} has one "
                        f"of {image.width} x {image.height}: leave it out or repair it."
                    )
        images, videos = ProcessedImages({}, [], []), ProcessedVideos({}, [])
        try:
            if any(sample.images for sample in samples):
                images = self.process_images(processor, samples)
            if any(sample.videos for sample in samples):
                clips = [self.read_clip(processor, v) for sample in samples for v in sample.videos]
                videos = self.process_videos(processor, clips)
        except ValueError as error:  # an aspect ratio beyond 200, for example
            raise UserError(
                f"An image or video cannot be resized for the model: {error}."
            ) from error
        prompts, filled, box_frames, visible_areas, start, video = [], [], [], [], 0, 0
        visual_tokens, counts = [], []
        areas = images.visible_areas or [FULL_AREA] * len(images.texts)
        for sample in samples:
            prompt = self.prompt(processor.tokenizer, sample)
            stop, following = start + len(sample.images), video + len(sample.videos)
            shown = {
                self.image_token: images.texts[start:stop],
                self.video_token: videos.texts[video:following],
            }
            prompts.append(prompt)
            filled.append(self._filled(prompt, sample, shown))
            box_frames.append(
                images.box_frames[stop - 1] if sample.images else BoxFrame(1, 1, 1, 1)
            )
            counts.append((videos.frames or [1] * len(videos.texts))[video:following])
            visible_areas.append([FULL_AREA] * sum(counts[-1]) + areas[start:stop])
            visual = "".join(text for texts in shown.values() for text in texts)
            visual_tokens.append(sum(map(visual.count, self.placeholders)))
            start, video = stop, following
        rows = processor.tokenizer(filled)["input_ids"]
        bos = processor.tokenizer.bos_token_id
        if self.begins_with_bos and bos is not None:  # some stored tokenizers leave it out
            rows = [row if row[:1] == [bos] else [bos, *row] for row in rows]
        inputs = processor.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        inputs = {**inputs, **self.joined_inputs(samples, images, videos)}
        frames = None if videos.frames is None else counts
        return Encoded(inputs, prompts, box_frames, visible_areas, visual_tokens, frames)

    def joined_inputs(
        self, samples: Sequence[Sample], images: ProcessedImages, videos: ProcessedVideos
    ) -> dict[str, Tensor]:
        """The model inputs that hold images and videos of a batch, by default under other names."""
        return {**images.inputs, **videos.inputs}

    def _filled(self, prompt: str, sample: Sample, shown: dict[str, list[str]]) -> str:
        """A prompt with visual tokens instead of placeholders.

        Args:
            prompt: The prompt.
            sample: What it is about.
            shown: For each placeholder, the texts that replace it in order.

        Raises:
            UserError: The question holds a placeholder, or the chat template leaves one out.
        """
        question = self.question_text(sample)
        for token in self.placeholders:
            if token in question:
                raise UserError(
                    f"A question must not hold the placeholder {token!r}; that of sample "
                    f"{sample.id!r} does: take it out."
                )
        for token, texts in shown.items():
            if token and prompt.count(token) != len(texts):
                raise UserError(
                    f"Expected {len(texts)} times {token!r} in the prompt of sample {sample.id!r}; "
                    f"the chat template of {self.source!r} gives {prompt.count(token)}: copy the "
                    "template from the checkpoint that this one was trained from."
                )
        tokens = "|".join(re.escape(token) for token in shown if token)
        remaining = {token: iter(texts) for token, texts in shown.items()}
        return re.sub(tokens, lambda match: next(remaining[match.group()]), prompt)


def interleaved(
    samples: Sequence[Sample], images: Iterable[Tensor], videos: Iterable[Tensor]
) -> Tensor:
    """Pixels in the order of prompts, where frames of videos are images: videos come first.

    Args:
        samples: The batch.
        images: Pixels of each image of the batch.
        videos: Pixels of each video.
    """
    images, videos = iter(images), iter(videos)
    pixels: list[Tensor] = []
    for sample in samples:
        pixels += islice(videos, len(sample.videos))
        pixels += islice(images, len(sample.images))
    return torch.cat(pixels)


def images_of(samples: Sequence[Sample]) -> list[Image.Image]:
    """The images of a batch, in order."""
    return [image for sample in samples for image in sample.images]


def magnified(sample: Sample) -> list[Image.Image]:
    """A sample's images; the first of MMMU's at twice its size, as VLMEvalKit passes it to some."""
    images = list(sample.images)
    if images and sample.benchmark == "MMMU_DEV_VAL":
        width, height = images[0].size
        images[0] = images[0].resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    return images
