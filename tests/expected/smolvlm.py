"""SmolVLM2."""

from __future__ import annotations

from expected import idefics3
from expected.idefics3 import FAKE, preprocessor


class Expected(idefics3.Expected):
    """As Idefics3, but the name of each tile is one token."""

    roles = {
        "bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>",
    }  # fmt: skip
    special = (
        "<image>", FAKE, "<global-img>",
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    )  # fmt: skip
    preprocessor = preprocessor("SmolVLMImageProcessor", 36)
    runs_offloaded = generates_offloaded = True
    full_size = {"max_image_size": {"longest_edge": 384}, "size": {"longest_edge": 1536}}
