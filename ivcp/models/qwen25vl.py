"""Qwen2.5-VL: M-RoPE, absolute boxes in pixels of the resized image; also the packaged model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import Encoded, Frame, ModelFamily
from ivcp.core.layout import ImageSpan, PromptLayout
from ivcp.core.pruner import Signal
from ivcp.core.types import Box, Sample

PACKAGED = Path(__file__).parent / "tiny"
BOX = re.compile(
    r"\[\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*\]"
)


def user_text(sample: Sample) -> str:
    """The question as Qwen2.5-VL is asked it, image left out.

    Source: prompts of the IVC-Prune release and of VLMEvalKit with Qwen's custom prompts.
    """
    if sample.task == "grounding":
        return f"\nLocate {sample.question} and output the bbox coordinates in JSON format."
    if sample.task == "yes_no":
        return f"{sample.question} Please answer yes or no."
    options = "\n".join(
        f"{chr(ord('A') + number)}. {text}" for number, text in enumerate(sample.options)
    )
    return (
        f"Question: {sample.question}\nOptions:\n{options}\n"
        "Please select the correct answer from the options above."
    )


@dataclass(frozen=True)
class Processor:
    """Tokenizer and PIL image processor; the library's own pairing insists on torchvision.

    Attributes:
        tokenizer: Pads on the left and carries the chat template.
        images: Resizes, normalises and cuts into patches.
        image_token: The placeholder that is repeated for each visual token.
    """

    tokenizer: Any
    images: Any
    image_token: str = "<|image_pad|>"


@dataclass(frozen=True, kw_only=True)
class Qwen25VL(ModelFamily):
    """Qwen2.5-VL of any size.

    Attributes:
        path: Hub id or local folder; None loads the small model that ships with the package.
        dtype: "float32", "bfloat16", "float16" or "auto" (as stored).
        attention: "sdpa", "eager" or "flash_attention_2".
        device_map: As in `from_pretrained`; None leaves placement to the trainer.
        min_pixels: Images with fewer pixels are enlarged; None keeps the checkpoint's value.
        max_pixels: Images with more pixels are shrunk; None keeps the checkpoint's value.
    """

    path: str | None = "Qwen/Qwen2.5-VL-7B-Instruct"
    dtype: str = "bfloat16"
    attention: str = "sdpa"
    device_map: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    provides: ClassVar[frozenset[Signal]] = frozenset(
        {"positions", "embeddings", "hidden", "values", "keys", "attention"}
    )

    @cached_property
    def _source(self) -> str:
        """Folder or hub id; a path that cannot be a hub id must exist."""
        source = str(PACKAGED if self.path is None else self.path)
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

    def load(self) -> tuple[nn.Module, Processor]:
        from transformers import (
            AutoTokenizer,
            Qwen2_5_VLForConditionalGeneration,
            Qwen2VLImageProcessorPil,
        )
        from transformers.utils import logging

        config = self._config
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # a folder loads in a moment; the run has its own bar
        try:
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                self._source,
                config=config,
                dtype=self.dtype if self.dtype == "auto" else getattr(torch, self.dtype),
                attn_implementation=self.attention,
                device_map=self.device_map,
            )
            tokenizer = AutoTokenizer.from_pretrained(self._source, padding_side="left")
            images = Qwen2VLImageProcessorPil.from_pretrained(self._source)
        except ImportError as error:
            raise UserError(
                f"model.attention={self.attention} cannot be used here ({str(error).split('.')[0]})"
                "; install it (pip install ivcp[flash-attn]) or use model.attention=sdpa."
            ) from error
        except (OSError, ValueError) as error:
            raise self._absent(error) from error
        finally:
            if bars:
                logging.enable_progress_bar()
        size = dict(images.size)
        images.size = {
            "shortest_edge": self.min_pixels or size["shortest_edge"],
            "longest_edge": self.max_pixels or size["longest_edge"],
        }
        return model.eval(), Processor(tokenizer, images)

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        images = [image for sample in samples for image in sample.images]
        try:
            pixels = processor.images(images, return_tensors="pt")
        except ValueError as error:  # an aspect ratio beyond 200, for example
            raise UserError(f"An image cannot be resized for the model: {error}.") from error
        merge, cell = processor.images.merge_size, processor.images.patch_size
        grids = iter(pixels["image_grid_thw"].tolist())
        texts, prompts, frames = [], [], []
        for sample in samples:
            content = [*({"type": "image"} for _ in sample.images),
                       {"type": "text", "text": user_text(sample)}]  # fmt: skip
            prompt = processor.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            prompts.append(prompt)
            pieces = prompt.split(processor.image_token)
            text = pieces[0]
            for piece in pieces[1:]:
                _, height, width = next(grids)
                text += processor.image_token * (height * width // merge**2) + piece
            texts.append(text)
            frames.append(Frame(width * cell, height * cell, *sample.images[-1].size))
        inputs = processor.tokenizer(
            texts, padding=True, return_tensors="pt", return_token_type_ids=False
        )
        token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == token).int()
        return Encoded({**inputs, **pixels}, prompts, frames)

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        texts: list[str] = processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def parse_box(self, text: str) -> Box | None:
        """The first bracketed list of four numbers, which `"bbox_2d"` cannot be mistaken for."""
        if not (found := BOX.search(text)):
            return None
        x1, y1, x2, y2 = (float(number) for number in found.groups())
        return x1, y1, x2, y2

    def entry(self, model: nn.Module) -> nn.Module:
        return model.model  # type: ignore[return-value]

    def decoder(self, model: nn.Module) -> nn.Module:
        return model.model.language_model  # type: ignore[union-attr,return-value]

    def vision(self, model: nn.Module) -> nn.Module:
        return model.model.visual  # type: ignore[union-attr,return-value]

    def layouts(
        self,
        model: nn.Module,
        rows: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        inputs: dict[str, Any],
    ) -> list[PromptLayout]:
        config: Any = model.config
        merge = config.vision_config.spatial_merge_size
        given = inputs.get("image_grid_thw")
        grids = iter([] if given is None else given.tolist())
        layouts = []
        for number, row in enumerate(rows):
            visual = row == config.image_token_id
            runs, lengths = torch.unique_consecutive(visual, return_counts=True)
            images, stop = [], 0
            for is_image, length in zip(runs.tolist(), lengths.tolist(), strict=True):
                start, stop = stop, stop + length
                if not is_image:
                    continue
                if positions is not None:  # axes are time, height, width
                    place = positions[number][:, start:stop]
                    height, width = (place.amax(1) - place.amin(1) + 1).tolist()[1:]
                else:
                    _, height, width = next(grids, (0, 0, 0))
                    height, width = height // merge, width // merge
                if height * width != length:
                    raise UserError(
                        f"Each run of image tokens must be one whole image; got {length} tokens"
                        f" for a grid of {height} x {width}. Go without prefill_chunk_size and "
                        "pass position_ids or image_grid_thw."
                    )
                images.append(ImageSpan(start, height, width))
            marks = torch.tensor([config.vision_start_token_id, config.vision_end_token_id])
            markers = torch.isin(row, marks).nonzero()[:, 0]
            layouts.append(PromptLayout(len(row), tuple(images), markers))
        return layouts

    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

        attention: Any = layer.self_attn
        query = attention.q_proj(layer.input_layernorm(hidden))  # type: ignore[operator]
        query = query.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # (B, H, R, D)
        rotated: Tensor = apply_rotary_pos_emb(query, query[:, :1], *rotary)[0]
        return rotated
