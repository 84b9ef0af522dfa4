"""What all families share: loading from the hub or a folder, batching prompts, reading boxes."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Encoded, ModelFamily
from ivcp.core.types import Box, Sample
from ivcp.core.view import TOWER_SIGNALS, Signal
from ivcp.models.decoders import projected, readable, rope_frequencies, rotated

NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
BRACKETS = re.compile(rf"\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]")


@dataclass(frozen=True)
class Processor:
    """Tokenizer and PIL image processor; the library's own pairing insists on torchvision.

    Attributes:
        tokenizer: Pads on the left.
        images: Resizes, normalises and cuts images.
        config: Configuration of the model.
    """

    tokenizer: Any
    images: Any
    config: Any = None


@dataclass(frozen=True)
class ProcessedImages:
    """What an image processor makes of the images of a batch.

    Attributes:
        inputs: Model inputs that hold them.
        texts: For each image, the text that takes its placeholder's place in the prompt.
        box_frames: For each image, the frame in which the model writes boxes.
        visible_areas: For each image, what the model sees of it, as fractions of width and
            height (beyond 0 .. 1 where it is padded); empty if all of all images.
    """

    inputs: dict[str, Tensor]
    texts: list[str]
    box_frames: list[BoxFrame]
    visible_areas: list[Box] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class HubFamily(ModelFamily):
    """A family of Hugging Face models with a Llama-like decoder.

    Attributes:
        path: Hub id or local folder.
        dtype: "float32", "bfloat16", "float16" or "auto" (as stored).
        attention: "sdpa", "eager" or "flash_attention_2".
        device_map: As in `from_pretrained`; None leaves placement to the trainer. With several
            processes on a machine, each spreads the model over its own share of the GPUs.

    A subclass sets `architecture` and `image_processor` (class names in `transformers`),
    `image_token` (the placeholder) and, where a prompt has no BOS though the tokenizer knows one,
    `begins_with_bos`.
    """

    path: str | None = None
    dtype: str = "bfloat16"
    attention: str = "sdpa"
    device_map: str | None = None

    architecture: ClassVar[str]
    image_processor: ClassVar[str]
    image_token: ClassVar[str]
    begins_with_bos: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check what the class itself can check.

        Raises:
            UserError: A field has an unknown value.
        """
        one_of("dtype", self.dtype, ("float32", "bfloat16", "float16", "auto"))

    @cached_property
    def _source(self) -> str:
        """Folder or hub id; a path that cannot be a hub id must exist."""
        if self.path is None:
            raise UserError(
                "model.path is not set: give the folder or hub id of a checkpoint that "
                f"{self.architecture} loads."
            )
        source = str(self.path)
        looks_local = source.startswith(("/", ".", "~")) or source.count("/") > 1
        if looks_local and not Path(source).expanduser().is_dir():
            raise UserError(
                f"model.path must be an existing folder with Hugging Face weights or a hub id; "
                f"got {source!r}, which is no folder."
            )
        return str(Path(source).expanduser()) if looks_local else source

    def _absent(self, error: Exception) -> UserError:
        reason = str(error).strip().split("\n")[0]
        return UserError(
            f"The model {self._source!r} could not be loaded ({reason}); download it where the hub "
            f"can be reached (hf download {self._source}) and point model.path at the folder."
        )

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self._source)
        except (OSError, ValueError) as error:
            raise self._absent(error) from error
        if config.model_type not in self.model_types:
            raise UserError(
                f"{type(self).__name__} loads models of type {', '.join(self.model_types)}; "
                f"{self._source!r} is of type {config.model_type!r}."
            )
        return config

    def depth(self) -> int:
        return int(self._config.text_config.num_hidden_layers)

    def signals(self) -> frozenset[Signal]:
        return self.provides(self._config)

    def identity(self) -> str:
        """Sizes and times of the files in a folder, or the hub's commit."""
        folder = Path(self._source)
        if not folder.is_dir():
            return str(getattr(self._config, "_commit_hash", None) or self._source)
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        told = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def load(self, gpus: Sequence[int] | None = None) -> tuple[nn.Module, Processor]:
        from transformers import AutoTokenizer
        from transformers.utils import logging

        config, memory = self._config, None
        if self.device_map is not None and gpus is not None:
            memory = {gpu: torch.cuda.mem_get_info(gpu)[0] for gpu in gpus}
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # a folder loads in a moment; the run has its own bar
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._source, padding_side="left")
            if tokenizer.pad_token is None:  # some Llama tokenizers
                tokenizer.pad_token = tokenizer.eos_token
            images = self._images(config)
            model = self._model_class().from_pretrained(
                self._source,
                config=config,
                dtype=self.dtype if self.dtype == "auto" else getattr(torch, self.dtype),
                attn_implementation=self.attention,
                device_map=self.device_map,
                max_memory=memory,
            )
        except ImportError as error:
            reason = str(error).strip().split(".")[0]
            if self.attention not in ("sdpa", "eager"):
                raise UserError(
                    f"model.attention={self.attention} cannot be used here ({reason}); install it "
                    "(pip install ivcp[flash-attn]) or use model.attention=sdpa."
                ) from error
            raise UserError(
                f"The model {self._source!r} needs a package that is missing ({reason})."
            ) from error
        except (OSError, ValueError) as error:
            raise self._absent(error) from error
        finally:
            if bars:
                logging.enable_progress_bar()
        return model.eval(), Processor(tokenizer, images, config)

    def _model_class(self) -> Any:
        import transformers

        return getattr(transformers, self.architecture)

    def _images(self, config: Any) -> Any:
        """The image processor, with the limits that the family's fields set."""
        import transformers

        return getattr(transformers, self.image_processor).from_pretrained(self._source)

    @abstractmethod
    def ask(self, sample: Sample) -> str:
        """The question in the family's words, images left out."""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Texts that stand for visual tokens, so that no question may hold them."""
        return (self.image_token,)

    def asked(self, sample: Sample) -> str:
        """What stands in the prompt beside the images."""
        return sample.question if sample.verbatim else self.ask(sample)

    @abstractmethod
    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """The whole prompt, with one `image_token` for each image."""

    @abstractmethod
    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        """What the image processor makes of all images of a batch, in order; there is at least one.

        Raises:
            ValueError: An image cannot be resized.
        """

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        processed = ProcessedImages({}, [], [])
        for sample in samples:
            for image in sample.images:
                if not min(image.size):
                    raise UserError(
                        f"An image must have at least 1 x 1 pixels; sample {sample.id!r} has one "
                        f"of {image.width} x {image.height}: leave it out or repair it."
                    )
        try:
            if any(sample.images for sample in samples):
                processed = self.process_images(processor, samples)
        except ValueError as error:  # an aspect ratio beyond 200, for example
            raise UserError(f"An image cannot be resized for the model: {error}.") from error
        prompts, texts, box_frames, visible_areas, first = [], [], [], [], 0
        areas = processed.visible_areas or [WHOLE] * len(processed.texts)
        for sample in samples:
            prompt = self.prompt(processor.tokenizer, sample)
            pieces = prompt.split(self.image_token)
            for token in self.placeholders:
                if len(pieces) != len(sample.images) + 1 or token in self.asked(sample):
                    raise UserError(
                        f"A question must not hold the image placeholder {token!r}; that of "
                        f"sample {sample.id!r} does: take it out."
                    )
            last = first + len(sample.images)
            text = pieces[0]
            for there, piece in zip(processed.texts[first:last], pieces[1:], strict=True):
                text += there + piece
            prompts.append(prompt)
            texts.append(text)
            box_frames.append(
                processed.box_frames[last - 1] if sample.images else BoxFrame(1, 1, 1, 1)
            )
            visible_areas.append(areas[first:last])
            first = last
        rows = processor.tokenizer(texts)["input_ids"]
        bos = processor.tokenizer.bos_token_id
        if self.begins_with_bos and bos is not None:  # some tokenizers, as stored, leave it out
            rows = [row if row[:1] == [bos] else [bos, *row] for row in rows]
        inputs = processor.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        return Encoded({**inputs, **processed.inputs}, prompts, box_frames, visible_areas)

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        texts: list[str] = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def parse_box(self, text: str) -> Box | None:
        """The first bracketed list of four numbers, which `"bbox_2d"` cannot be mistaken for."""
        return four_numbers(BRACKETS, text)

    def provides(self, config: Any) -> frozenset[Signal]:
        return readable(config) | TOWER_SIGNALS | {"question"}

    def entry(self, model: nn.Module) -> nn.Module:
        return getattr(model, "model", model)

    def decoder(self, model: nn.Module) -> nn.Module:
        return self.entry(model).language_model  # type: ignore[return-value]

    def vision(self, model: nn.Module) -> nn.Module:
        return self.entry(model).vision_tower  # type: ignore[return-value]

    def inverse_frequencies(self, model: nn.Module) -> Tensor:
        return rope_frequencies(self.decoder(model))

    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        return rotated(projected(layer, hidden, "q"), rotary)

    def stored_states(
        self, layer: nn.Module, hidden: Tensor, rotary: Any, *, values: bool = True
    ) -> tuple[Tensor, Tensor]:
        keys = rotated(projected(layer, hidden, "k"), rotary)
        return keys, projected(layer, hidden, "v") if values else keys


def four_numbers(pattern: re.Pattern[str], text: str) -> Box | None:
    """The four groups of a pattern's first match as numbers; None without a match."""
    if not (found := pattern.search(text)):
        return None
    x1, y1, x2, y2 = (float(number) for number in found.groups())
    return x1, y1, x2, y2


def pictures(samples: Sequence[Sample]) -> list[Image.Image]:
    """The images of a batch, in order."""
    return [image for sample in samples for image in sample.images]


def magnified(sample: Sample) -> list[Image.Image]:
    """A sample's images; the first of MMMU's at twice its size, as VLMEvalKit shows it to some."""
    images = list(sample.images)
    if images and sample.benchmark == "MMMU_DEV_VAL":
        width, height = images[0].size
        images[0] = images[0].resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    return images


def one_of(name: str, value: str, options: Sequence[str]) -> None:
    """Check a field of a model.

    Raises:
        UserError: The value is none of the options.
    """
    if value not in options:
        raise UserError(f"model.{name} must be {' or '.join(options)}; got {value!r}.")
