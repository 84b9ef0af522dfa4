"""What all families share: loading from the hub or a folder, reading boxes, looking inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.layer_kinds import LayerKind, check_kinds
from ivcp.core.types import Box
from ivcp.core.view import TOWER_SIGNALS, Signal
from ivcp.models import checkpoint
from ivcp.models.decoders import projected, readable, rope_frequencies, rotated
from ivcp.models.device_map import check_device_map
from ivcp.models.encoding import PromptFamily
from ivcp.models.hub_access import cache_only
from ivcp.models.processor import Processor
from ivcp.models.weight_files import check_complete

NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
BRACKETS = re.compile(rf"\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]")


@dataclass(frozen=True, kw_only=True)
class HubFamily(PromptFamily):
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
    types of language models of its own that `decoders.projected` can read, `type_advice`, for
    checkpoints of another type, and `packaged`, the folder that `path` None stands for.
    """

    path: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "bfloat16"
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    device_map: str | None = None

    architecture: ClassVar[str]
    image_processor: ClassVar[str]
    decoder_types: ClassVar[tuple[str, ...]] = ()
    packaged: ClassVar[Path | None] = None
    type_advice: ClassVar[str] = "choose the model= option of that type"

    def __post_init__(self) -> None:
        """Check types and choices.

        Raises:
            UserError: A field has another type, or none of its allowed values.
        """
        check_fields(self, "model.")

    @cached_property
    def _source(self) -> str:
        if self.path is None and self.packaged is not None:
            return str(self.packaged)
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
