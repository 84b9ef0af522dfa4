"""GLM-4.1V and GLM-4.6V-Flash: thoughts before answers, boxes in thousandths of the image."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import Encoded, Inputs, Rows
from ivcp.core.layout import PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Box, Sample
from ivcp.core.video import Clip
from ivcp.models import wording
from ivcp.models.decoders import rotated_pairs
from ivcp.models.hub import NUMBER, four_numbers
from ivcp.models.processor import Processor
from ivcp.models.qwen3vl import Qwen3VL
from ivcp.models.thinking import START, final_answer
from ivcp.models.towers_qwen import GlmTower
from ivcp.models.video_frames import PAIR

ANY_BRACKETS = re.compile(rf"[\[(<{{]{NUMBER},{NUMBER},{NUMBER},{NUMBER}[\])>}}]")
"""The model card names `[]`, `[[]]`, `()` and `<>`."""
BOX_MARKS = re.compile(r"<\|(begin|end)_of_box\|>")
TEXT_ONLY = Sample(
    id="", task="open_ended", images=(), question="", answer="", verbatim=True
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Glm4V(Qwen3VL):
    """GLM-4.1V-9B-Thinking and GLM-4.6V-Flash, whose layout is that of Qwen-VL.

    A prompt holds images or videos, not both, because both have the same placeholder token.
    Source: GLM-4.1V-Thinking (arXiv 2507.01006), section 2, and `transformers/models/glm4v`.

    Attributes, beside those of `QwenFamily`:
        thinking: Whether the model thinks before it answers; the answer is what follows
            `</think>`. GLM-4.1V always thinks.
        seconds: How the second of a frame pair stands behind it: "integer" for GLM-4.1V, "decimal"
            for GLM-4.6V.
    """

    path: str | None = "zai-org/GLM-4.1V-9B-Thinking"
    min_frames: int = 1
    max_frames: int = 600
    min_frame_tokens: int = 8
    max_frame_tokens: int = 30_000
    max_video_tokens: int = 30_000
    thinking: bool = True
    seconds: Literal["integer", "decimal"] = "integer"

    model_types: ClassVar[tuple[str, ...]] = ("glm4v",)
    decoder_types: ClassVar[tuple[str, ...]] = ("glm4v_text",)
    architecture: ClassVar[str] = "Glm4vForConditionalGeneration"
    image_processor: ClassVar[str] = "Glm4vImageProcessorPil"
    image_token: ClassVar[str] = "<|image|>"
    video_token: ClassVar[str] = "<|video|>"
    counted_frames: ClassVar[int] = PAIR
    image_marks: ClassVar[tuple[str, str]] = ("<|begin_of_image|>", "<|end_of_image|>")
    video_marks: ClassVar[tuple[str, str]] = ("<|begin_of_video|>", "<|end_of_video|>")

    @property
    def placeholders(self) -> tuple[str, ...]:
        return self.image_token, self.video_token

    def _tokenizer(self, config: Any) -> Any:
        tokenizer = super()._tokenizer(config)
        if not self.thinking:
            both = {
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": "?"}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=thinking,
                )
                for thinking in (True, False)
            }
            if len(both) == 1:
                raise UserError(
                    f"The chat template of the model {self._source!r} has no switch for thinking: "
                    "use model.thinking=true, or GLM-4.6V-Flash (model=glm46v)."
                )
        return tokenizer

    def template_settings(self) -> dict[str, Any]:
        return {} if self.thinking else {"enable_thinking": False}

    def format_question(self, sample: Sample) -> str:
        return wording.glm(sample)

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        if any(sample.images for sample in samples) and any(sample.videos for sample in samples):
            raise UserError(
                "GLM-4.1V has one placeholder for images and videos, so that the library can not "
                "encode both at once: choose samples with images only or videos only."
            )
        return super().encode(processor, samples)

    def token_types(self, tokenizer: Any, ids: Tensor) -> Tensor:
        image, start, end = (
            ids == tokenizer.convert_tokens_to_ids(token)
            for token in (self.image_token, *self.video_marks)
        )
        return image.int() * (1 + _inside(start, end).int())

    def choose_frames(self, total: int, rate: float) -> list[int]:
        """Frames by `fps` from the first one on; of a long clip evenly spaced; an even number.

        Source: `Glm4vVideoProcessor.sample_frames` of transformers.
        """
        if self.frames is not None:
            return super().choose_frames(total, rate)
        duration = total / rate
        if (count := duration * self.fps) <= self.max_frames:
            count = max(math.floor(count), self.min_frames)
            seconds = np.arange(count) / self.fps
        else:
            seconds = np.linspace(0, duration, self.max_frames)
        indices = np.unique(np.ceil(seconds * rate - 1e-6).astype(int).clip(0, total - 1)).tolist()
        return [*indices, indices[-1]] if len(indices) % PAIR else indices

    def video_text(self, clip: Clip, moments: int, tokens: int) -> str:
        """Each frame pair, and behind it the second of its first frame."""
        times = [clip.times[PAIR * moment] for moment in range(moments)]
        texts = [
            f"{time:.1f} seconds" if self.seconds == "decimal" else f"{int(time)}" for time in times
        ]
        start, end = self.image_marks
        return "".join(f"{start}{self.image_token * tokens}{end}{text}" for text in texts)

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        """Answers without thoughts and without the marks of boxes."""
        texts = super().decode(processor, tokens)
        if self.prompt(processor.tokenizer, TEXT_ONLY).rstrip().endswith(START):
            texts = [START + text for text in texts]
        return [BOX_MARKS.sub("", final_answer(text)).strip() for text in texts]

    def parse_box(self, text: str) -> Box | None:
        """The first four numbers in brackets of any kind."""
        return four_numbers(ANY_BRACKETS, text)

    def tower(self, model: nn.Module) -> VisionTower:
        return GlmTower(self.entry(model))

    def marker_ids(self, config: Any) -> list[int]:
        return [
            getattr(config, f"{kind}_{edge}_token_id")
            for kind in ("image", "video")
            for edge in ("start", "end")
        ]

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        """As in Qwen3-VL, if image tokens between the marks of a video were those of a video."""
        config: Any = model.config
        renamed = []
        for row in rows:
            start, end = (
                row == token for token in (config.video_start_token_id, config.video_end_token_id)
            )
            of_video = (row == config.image_token_id) & _inside(start, end)
            renamed.append(row.masked_fill(of_video, config.video_token_id))
        return super().layouts(model, renamed, positions, inputs)

    def rotate(self, layer: nn.Module, states: Tensor, rotary: Any) -> Tensor:
        return rotated_pairs(layer, states, rotary)


def _inside(start: Tensor, end: Tensor) -> Tensor:
    """(..., S) whether a token stands behind more starts than ends."""
    return torch.cumsum(start, -1) > torch.cumsum(end, -1)
