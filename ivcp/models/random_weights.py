"""Models with random weights at published sizes: nothing is downloaded, no tokenizer is needed.

Times and bytes depend on sizes, not on what a model has learned.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.models.hub import HubFamily
from ivcp.models.processor import Processor
from ivcp.models.published import PUBLISHED, Settings

NO_PATH = {"internvl": "OpenGVLab/InternVL2_5-8B"}
"""Published sizes, by model type, for a family whose `path` is None since no checkpoint fits."""
SPECIAL_IDS = {
    "image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6,
    "image_start_token_id": 5, "image_end_token_id": 6, "video_start_token_id": 7,
    "video_end_token_id": 8,
}  # fmt: skip
"""Ids in the configuration; they are low, so that every vocabulary has them."""
FIRST_WORD, WORDS = 16, 1000
"""Id of the first ordinary word, and how many there are."""
PAD = 0
REDUCED_TEXT: Settings = {
    "vocab_size": 1024, "hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 8,
    "num_attention_heads": 6, "head_dim": 64, "moe_intermediate_size": 192, "n_routed_experts": 8,
    "num_experts": 8, "kv_lora_rank": 128, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 32, "linear_value_head_dim": 32,
}  # fmt: skip
REDUCED_TOWER: Settings = {
    "depth": 4, "layers": 4, "num_hidden_layers": 4, "embed_dim": 64, "width": 64,
    "hidden_size": 64, "intermediate_size": 128, "mlp_ratio": 2, "num_heads": 2, "heads": 2,
    "num_attention_heads": 2, "projection_dim": 64, "out_hidden_size": REDUCED_TEXT["hidden_size"],
    "fullatt_block_indexes": [1, 3], "deepstack_visual_indexes": [0, 1, 2],
}  # fmt: skip


class RandomTokenizer:
    """Turns any text into ids, one for each word; texts that stand for visual tokens have theirs.

    Args:
        special: Ids of texts that are one token.
        shown: The text of an "image" and of a "video" in a chat.
    """

    bos_token_id = None
    chat_template = None

    def __init__(self, special: Mapping[str, int], shown: Mapping[str, str]) -> None:
        self.special, self.shown = dict(special), shown
        self.pattern = re.compile("|".join([*map(re.escape, special), r"\w+", r"[^\w\s]"]))

    def __call__(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """The ids of each text."""
        rows = [[self.convert_tokens_to_ids(w) for w in self.pattern.findall(t)] for t in texts]
        return {"input_ids": rows}

    def convert_tokens_to_ids(self, word: str) -> int:
        """The id of a word, the same one each time."""
        ordinary = FIRST_WORD + zlib.crc32(word.encode()) % WORDS
        return self.special.get(word, ordinary)

    def pad(self, rows: Mapping[str, list[list[int]]], **_: Any) -> dict[str, Tensor]:
        """Rows of one length, padded on the left, and their mask."""
        ids = [torch.tensor(row) for row in rows["input_ids"]]
        padded = nn.utils.rnn.pad_sequence(ids, True, PAD, "left")
        ones = [torch.ones_like(row) for row in ids]
        return {
            "input_ids": padded,
            "attention_mask": nn.utils.rnn.pad_sequence(ones, True, 0, "left"),
        }

    def apply_chat_template(self, turns: Sequence[Mapping[str, Any]], **_: Any) -> str:
        """Qwen's form of a prompt."""
        parts = [part for turn in turns for part in turn["content"]]
        return " ".join(
            part["text"] if "text" in part else self.shown[part["type"]] for part in parts
        )

    def batch_decode(self, tokens: Tensor, **_: Any) -> list[str]:
        """Ids as text."""
        return [" ".join(map(str, row)) for row in tokens.tolist()]


def random_weights(family: ModelFamily, *, reduced: bool = False, device: str = "cpu") -> Any:
    """The family with random weights in place of its checkpoint's.

    Args:
        family: A family of the hub. Its `path` names the published sizes, or a folder whose
            `config.json` is read.
        reduced: Whether the model has a few narrow layers only, for machines without a GPU.
        device: Where the weights are made; no copy of them is ever elsewhere.

    Returns:
        A family of the same class, with the same settings.

    Raises:
        UserError: The sizes are not known.
    """
    if not isinstance(family, HubFamily):
        raise UserError(f"{type(family).__name__} has no random weights: give model.path.")
    base: Any = family
    kind: Any = type(family)
    name: str = base.path or NO_PATH.get(base.model_types[0], "the packaged model")
    if name in PUBLISHED:
        settings = reduced_settings(PUBLISHED[name]) if reduced else PUBLISHED[name]
        config = random_config(kind, settings)
    elif reduced:
        raise UserError(
            f"model.reduced=true makes published sizes smaller, and those of {name!r} are not "
            "known here: leave it out, or choose another model."
        )
    else:
        config = copy.deepcopy(base._config)
        _set_ids(config)
    values = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    if values["dtype"] == "auto":
        values["dtype"] = "bfloat16"
    if "text_tower" in values:
        values["text_tower"] = None  # it would be loaded from the hub

    class Random(kind):  # type: ignore[misc]
        __module__, __qualname__ = kind.__module__, kind.__qualname__  # what a record names
        _config = config

        def load(self, gpus: Sequence[int] | None = None) -> tuple[nn.Module, Processor]:
            dtype = getattr(torch, self.dtype)
            config._attn_implementation = self.attention
            model = make_random(self._model_class(), config, dtype, device)
            return model, self.processor()

        def identity(self) -> str:
            return f"random, {'reduced from ' if reduced else ''}{name}"

        def _tokenizer(self, config: Any) -> RandomTokenizer:
            marks: dict[str, tuple[str, str]] = {
                kind: getattr(self, f"{kind}_marks", ("", "")) for kind in ("image", "video")
            }
            special: dict[str, int] = {}
            shown: dict[str, str] = {}
            for kind, token in zip(marks, self.placeholders, strict=False):  # or images only
                special[token] = SPECIAL_IDS[f"{kind}_token_id"]
                for edge, mark in zip(("start", "end"), marks[kind], strict=True):
                    if mark:
                        special[mark] = SPECIAL_IDS[f"{kind}_{edge}_token_id"]
                start, end = marks[kind] if any(marks[kind]) else marks["image"]
                shown[kind] = f"{start}{token}{end}"
            return RandomTokenizer(special, shown)

        def _stored_images(self, kind: Any) -> Any:
            return kind(**image_settings(config, kind.size))

    return Random(**values)


def make_random(kind: Any, config: Any, dtype: torch.dtype, device: str) -> Any:
    """A model of a class in evaluation mode with random weights, the same ones each time.

    Args:
        kind: The class.
        config: Its configuration; its attention implementation is used.
        dtype: Type of the weights.
        device: Where the weights are made.

    Raises:
        UserError: A package of the attention implementation is missing.
    """
    torch.manual_seed(0)
    try:
        with torch.device(device):
            model = kind._from_config(config, dtype=dtype).eval()
            for name, weight in model.named_parameters():
                # zeros, by which all patches would be attended to alike, or all images be nothing
                if name.endswith(("cls_token", "mm_input_projection_weight")):
                    nn.init.normal_(weight)
                if name.endswith("A_log"):  # linear attention that remembers, as trained heads do
                    nn.init.uniform_(weight, -6, 0)
    except ImportError as error:
        reason = str(error).strip().split(".")[0]
        raise UserError(
            f"model.attention={config._attn_implementation} cannot be used here ({reason}); "
            "install it (pip install ivcp[flash-attn]) or use model.attention=sdpa."
        ) from error
    model.generation_config.pad_token_id = PAD
    return model


def random_config(family: Any, settings: Settings) -> Any:
    """A model's configuration at these sizes, with `SPECIAL_IDS`.

    Args:
        family: Class of the family.
        settings: As in `PUBLISHED`.
    """
    part = "language_config" if "language_config" in settings else "text_config"
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    tied = {"tie_word_embeddings": settings.get("tie_word_embeddings", False)}
    kind = family()._model_class().config_class
    config = kind(**{**settings, **tied, part: {**settings[part], **tied, **ids}})
    _set_ids(config)
    return config


def _set_ids(config: Any) -> None:
    for name, number in SPECIAL_IDS.items():
        if hasattr(config, name):
            setattr(config, name, number)


def reduced_settings(settings: Settings) -> Settings:
    """The same architecture in a few narrow layers."""
    part = "language_config" if "language_config" in settings else "text_config"
    text, tower = settings[part], settings["vision_config"]
    small_text = {**text, **{key: REDUCED_TEXT[key] for key in text if key in REDUCED_TEXT}}
    heads = small_text["num_attention_heads"]
    grouped = text["num_key_value_heads"] < text["num_attention_heads"]
    small_text["num_key_value_heads"] = heads // 3 if grouped else heads
    rotary = text.get("rope_parameters", {})
    if "mrope_section" in rotary:  # fewer numbers of a head, so less of each section
        factor = text.get("head_dim", 128) // REDUCED_TEXT["head_dim"]
        sections = [section // factor for section in rotary["mrope_section"]]
        small_text["rope_parameters"] = {**rotary, "mrope_section": sections}
    small_tower = {**tower, **{key: REDUCED_TOWER[key] for key in tower if key in REDUCED_TOWER}}
    if "embed_dim" in tower:  # Qwen2-VL names the width of the language model hidden_size
        small_tower["hidden_size"] = small_text["hidden_size"]
    reduced = {**settings, part: small_text, "vision_config": small_tower}
    if "projector_config" in settings:
        small_tower["heads"] = REDUCED_TOWER["heads"]
        widths = {"input_dim": small_tower["width"], "n_embed": small_text["hidden_size"]}
        reduced["projector_config"] = widths
    return reduced


def image_settings(config: Any, size: Mapping[str, int]) -> Settings:
    """Settings of an image processor for a model's vision tower.

    Args:
        config: The model's configuration.
        size: The default size of the image processor, which shows how it names sizes.
    """
    tower = config.vision_config
    if {"shortest_edge", "longest_edge"} <= set(size):  # Qwen-VL
        area = (tower.patch_size * tower.spatial_merge_size) ** 2  # of a visual token
        return {
            "patch_size": tower.patch_size, "merge_size": tower.spatial_merge_size,
            "temporal_patch_size": tower.temporal_patch_size,
            "size": {"shortest_edge": 4 * area, "longest_edge": 16384 * area},
        }  # fmt: skip
    edge = tower.image_size if isinstance(tower.image_size, int) else tower.image_size[0]
    settings: Settings = {"size": dict.fromkeys(size, edge)}
    if "longest_edge" in size:  # Idefics3: tiles along the longer edge
        return {"size": {"longest_edge": 4 * edge}, "max_image_size": {"longest_edge": edge}}
    if "shortest_edge" in size:  # CLIP
        settings["crop_size"] = {"height": edge, "width": edge}
    if pinpoints := getattr(config, "image_grid_pinpoints", None):
        settings["image_grid_pinpoints"] = pinpoints
    return settings
