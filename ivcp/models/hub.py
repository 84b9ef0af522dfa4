"""What all families share: loading from the hub or a folder, batching prompts, reading boxes."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Encoded, ModelFamily
from ivcp.core.fields import check_fields
from ivcp.core.layer_kinds import LayerKind, check_kinds
from ivcp.core.printable import check_characters
from ivcp.core.types import Box, Sample
from ivcp.core.video import Clip, Video
from ivcp.core.view import TOWER_SIGNALS, Signal
from ivcp.models import checkpoint
from ivcp.models.decoders import projected, readable, rope_frequencies, rotated
from ivcp.models.device_map import check_device_map
from ivcp.models.hub_access import cache_only
from ivcp.models.processor import ProcessedImages, ProcessedVideos, Processor
from ivcp.models.weight_files import check_complete

NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
FULL_AREA: Box = (0.0, 0.0, 1.0, 1.0)
BRACKETS = re.compile(rf"\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]")


@dataclass(frozen=True, kw_only=True)
class HubFamily(ModelFamily):
    """A family of Hugging Face models with a Llama-like decoder.

    Attributes:
        path: Hub id or local folder.
        dtype: "float32", "bfloat16", "float16" or "auto" (as stored).
        attention: "sdpa", "eager", "flash_attention_2" or "flash_attention_3".
        device_map: As in `from_pretrained`; None leaves it to the trainer where the model runs.
            With several processes on a machine, each spreads the model over its own GPUs.

    A subclass sets `architecture` and `image_processor` (class names in `transformers`) and
    `image_token` (the placeholder). Where needed it sets `begins_with_bos` to False, for prompts
    without the tokenizer's BOS, `video_token` to the placeholder of a video, `decoder_types` to
    types of language models of its own that `decoders.projected` can read, and `type_advice`, for
    checkpoints of another type.
    """

    path: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "bfloat16"
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    device_map: str | None = None

    architecture: ClassVar[str]
    image_processor: ClassVar[str]
    image_token: ClassVar[str]
    video_token: ClassVar[str] = ""
    begins_with_bos: ClassVar[bool] = True
    decoder_types: ClassVar[tuple[str, ...]] = ()
    type_advice: ClassVar[str] = "choose the model= option of that type"

    def __post_init__(self) -> None:
        """Check types and choices.

        Raises:
            UserError: A field has another type, or none of its allowed values.
        """
        check_fields(self, "model.")

    @cached_property
    def _source(self) -> str:
        return checkpoint.find_source(self.path, self.architecture)

    @cached_property
    def _config(self) -> Any:
        name = type(self).__name__
        return checkpoint.read_config(self._source, name, self.model_types, self.type_advice)

    @property
    def source(self) -> str:
        """Folder or hub id of the checkpoint."""
        return self._source

    @property
    def config(self) -> Any:
        """The checkpoint's configuration."""
        return self._config

    def generation_settings(self) -> dict[str, Any]:
        """The checkpoint's own generation settings, where a call of `generate` names nothing."""
        return checkpoint.generation_settings(self._source, self._config)

    def skeleton(self) -> nn.Module:
        """The model without weights, from which its sizes can be read."""
        with torch.device("meta"):
            model: nn.Module = self._model_class()._from_config(self._config)
        return model

    def depth(self) -> int:
        return int(self._config.text_config.num_hidden_layers)

    def tower_depth(self) -> int | None:
        vision = self._config.vision_config  # Qwen's has that name since transformers 5.20
        return int(getattr(vision, "num_hidden_layers", None) or vision.depth)

    def signals(self) -> frozenset[Signal]:
        return self.provides(self._config)

    def kinds(self) -> tuple[LayerKind, ...]:
        kinds = self.layer_kinds(self._config)
        check_kinds(self._config, kinds, self.supported_kinds)
        return kinds

    def identity(self) -> str:
        return checkpoint.identity(self._source, self._config)

    def load(self, gpus: Sequence[int] | None = None) -> tuple[nn.Module, Processor]:
        from transformers.utils import logging

        config, memory = self._config, None
        check_device_map(self.device_map)
        if self.device_map is not None and gpus is not None:
            memory = {gpu: torch.cuda.mem_get_info(gpu)[0] for gpu in gpus}
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # a folder loads in a moment; the run has its own bar
        try:
            with checkpoint.explained(self._source, self.attention):
                # weights come last: what is wrong with the small files is found in a second
                processor = self.processor()
                model, found = self._model_class().from_pretrained(
                    self._source,
                    config=config,
                    dtype=self.dtype if self.dtype == "auto" else getattr(torch, self.dtype),
                    attn_implementation=self.attention,
                    device_map=self.device_map,
                    max_memory=memory,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # `check_complete` names them
                    local_files_only=cache_only(self._source),
                )
        finally:
            if bars:
                logging.enable_progress_bar()
        check_complete(self._source, found)
        return model.eval(), processor

    def processor(self) -> Processor:
        """The tokenizer and the image processor, without the model.

        Raises:
            UserError: The checkpoint has no tokenizer.
            OSError: A file cannot be read.
            ValueError: Likewise.
        """
        config = self._config
        return Processor(self._tokenizer(config), self._images(config), config, self)

    def _model_class(self) -> Any:
        import transformers

        return getattr(transformers, self.architecture)

    def _tokenizer(self, config: Any) -> Any:
        """The tokenizer.

        Raises:
            UserError: The checkpoint has none.
        """
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            self._source,
            padding_side="left",
            trust_remote_code=False,
            local_files_only=cache_only(self._source),
        )
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # made without files
            raise UserError(
                f"The model {self._source!r} has no tokenizer: copy the tokenizer's files from the "
                "checkpoint that this one was trained from."
            )
        if tokenizer.pad_token is None:  # some Llama tokenizers
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def _images(self, config: Any) -> Any:
        """The image processor, with the limits that the family's fields set."""
        import transformers

        return self._stored_images(getattr(transformers, self.image_processor))

    def _stored_images(self, kind: Any) -> Any:
        """The image processor of a class, with the checkpoint's settings."""
        return kind.from_pretrained(self._source, local_files_only=cache_only(self._source))

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
                    f"the chat template of {self._source!r} gives {prompt.count(token)}: copy the "
                    "template from the checkpoint that this one was trained from."
                )
        tokens = "|".join(re.escape(token) for token in shown if token)
        remaining = {token: iter(texts) for token, texts in shown.items()}
        return re.sub(tokens, lambda match: next(remaining[match.group()]), prompt)

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        texts: list[str] = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def parse_box(self, text: str) -> Box | None:
        """The first bracketed list of four numbers, which `"bbox_2d"` cannot be mistaken for."""
        return four_numbers(BRACKETS, text)

    def provides(self, config: Any) -> frozenset[Signal]:
        return readable(config, self.decoder_types) | TOWER_SIGNALS | {"question"}

    def entry(self, model: nn.Module) -> nn.Module:
        return getattr(model, "model", model)

    def decoder(self, model: nn.Module) -> nn.Module:
        return self.entry(model).language_model  # type: ignore[return-value]

    def vision(self, model: nn.Module) -> nn.Module:
        return self.entry(model).vision_tower  # type: ignore[return-value]

    def inverse_frequencies(self, model: nn.Module) -> Tensor:
        return rope_frequencies(self.decoder(model))

    def rotate(self, layer: nn.Module, states: Tensor, rotary: Any) -> Tensor:
        """Queries or keys with their rotary embedding."""
        return rotated(layer, states, rotary)

    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        return self.rotate(layer, projected(layer, hidden, "q"), rotary)

    def stored_states(
        self, layer: nn.Module, hidden: Tensor, rotary: Any, *, values: bool = True
    ) -> tuple[Tensor, Tensor]:
        keys = self.rotate(layer, projected(layer, hidden, "k"), rotary)
        return keys, projected(layer, hidden, "v") if values else keys


def four_numbers(pattern: re.Pattern[str], text: str) -> Box | None:
    """The four groups of a pattern's first match as numbers; None without a match."""
    if not (match := pattern.search(text)):
        return None
    x1, y1, x2, y2 = (float(number) for number in match.groups())
    return x1, y1, x2, y2


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
