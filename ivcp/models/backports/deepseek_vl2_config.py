"""The configuration of DeepSeek-VL2, as published or in the library's terms.

Source: deepseek_vl2/models/configuration_deepseek.py and modeling_deepseek_vl_v2.py of
deepseek-ai/DeepSeek-VL2. A published `config.json` leaves out whatever equals a default of those
classes, and the library's defaults are others, so the published ones are stated here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from transformers import AutoConfig, DeepseekV2Config, PreTrainedConfig, SiglipVisionConfig

from ivcp.core.errors import UserError

TEXT_DEFAULTS: dict[str, Any] = {
    "bos_token_id": 100000, "eos_token_id": 100001, "num_hidden_layers": 30,
    "n_routed_experts": None, "n_shared_experts": None, "moe_layer_freq": 1, "use_mla": True,
    "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": False,
    "rope_theta": 10000.0, "rope_scaling": None, "num_attention_heads": 32,
}  # fmt: skip
VISION_DEFAULTS: dict[str, Any] = {
    "image_size": 384, "patch_size": 16, "width": 1024, "layers": 24, "heads": 16,
    "mlp_ratio": 4, "class_token": False, "ignore_head": True,
}  # fmt: skip
PROJECTOR_DEFAULTS: dict[str, Any] = {
    "projector_type": "downsample_mlp_gelu", "input_dim": 1152, "n_embed": 2048, "depth": 2,
    "mlp_ratio": 1, "downsample_ratio": 2, "token_pooling": False,
}  # fmt: skip
YARN_DEFAULTS: dict[str, Any] = {
    "factor": 1.0, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
    "mscale": 1, "mscale_all_dim": 0,
}  # fmt: skip


def _require(name: str, got: Any, expected: Any, remedy: str = "") -> None:
    if got != expected:
        raise UserError(
            f"DeepSeek-VL2 is supported with {name} = {expected!r}; this checkpoint has {got!r}."
            + remedy
        )


def rope_parameters(theta: float, scaling: dict[str, Any] | None) -> dict[str, Any]:
    """Rotary settings in the library's form.

    Args:
        theta: Base of the frequencies.
        scaling: The published `rope_scaling`: None or a YaRN dictionary.

    Returns:
        `rope_parameters` of the library. The factor on cos and sin is stated, because the library
        derives another one where `mscale_all_dim` is zero.

    Raises:
        UserError: Another kind of scaling.
    """
    if scaling is None:
        return {"rope_type": "default", "rope_theta": float(theta)}
    _require("rope_scaling type", scaling.get("type", scaling.get("rope_type")), "yarn")
    yarn = {name: scaling.get(name, default) for name, default in YARN_DEFAULTS.items()}
    yarn["factor"] = float(yarn["factor"])
    stretch = 0.1 * math.log(max(yarn["factor"], 1.0))
    factor = (stretch * yarn["mscale"] + 1) / (stretch * yarn["mscale_all_dim"] + 1)
    return {"rope_type": "yarn", "rope_theta": float(theta), "attention_factor": factor, **yarn}


def published_text(published: dict[str, Any]) -> Any:
    """A published `language_config` as the library's `DeepseekV2Config`.

    Raises:
        UserError: An architecture that is not built: no multi-head latent attention (the tiny
            model), mixed dense and expert layers, another routing than the two published ones.
    """
    text = TEXT_DEFAULTS | published
    if not text["use_mla"]:
        raise UserError(
            "DeepSeek-VL2 is supported with multi-head latent attention; this checkpoint has "
            "use_mla = false (deepseek-vl2-tiny). Use deepseek-vl2-small or deepseek-vl2."
        )
    fields = {field.name for field in dataclasses.fields(DeepseekV2Config)} - {"architectures"}
    kept = {name: value for name, value in text.items() if name in fields}
    kept["num_key_value_heads"] = text["num_attention_heads"]  # latent attention has no groups
    kept["rope_parameters"] = rope_parameters(text["rope_theta"], text["rope_scaling"])
    if text["n_routed_experts"] is None:
        kept["first_k_dense_replace"] = text["num_hidden_layers"]
        del kept["n_routed_experts"], kept["n_shared_experts"]
        return DeepseekV2Config(**kept)
    _require("moe_layer_freq", text["moe_layer_freq"], 1)
    if text["n_shared_experts"] is None:
        raise UserError("DeepSeek-VL2 is supported with shared experts; this checkpoint has none.")
    if text["topk_method"] == "noaux_tc":
        _require("scoring_func for noaux_tc", text["scoring_func"], "sigmoid")
    elif text["topk_method"] in ("greedy", "group_limited_greedy"):
        _require("scoring_func for greedy routing", text["scoring_func"], "softmax")
        _require("norm_topk_prob for greedy routing", text["norm_topk_prob"], False)
    else:
        _require("topk_method", text["topk_method"], "greedy")
    return DeepseekV2Config(**kept)


def published_vision(published: dict[str, Any]) -> Any:
    """A published `vision_config`, in timm's terms, as a `SiglipVisionConfig`."""
    vision = VISION_DEFAULTS | published
    _require("class_token of the vision tower", vision["class_token"], False)
    _require("ignore_head of the vision tower", vision["ignore_head"], True)
    return SiglipVisionConfig(
        hidden_size=vision["width"],
        intermediate_size=int(vision["width"] * vision["mlp_ratio"]),
        num_hidden_layers=vision["layers"],
        num_attention_heads=vision["heads"],
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        vision_use_head=False,
    )


class DeepseekVL2Config(PreTrainedConfig):  # type: ignore[misc]
    """DeepSeek-VL2, read from a published `config.json` or from the library's terms.

    The published keys `language_config`, `projector_config` and a `vision_config` with timm's names
    become the fields below; saving writes the fields.

    Attributes:
        text_config: The decoder, a `DeepseekV2Config`.
        vision_config: The tower, a `SiglipVisionConfig`; its pooling head is never built.
        image_token_id: Id of the placeholder that every visual token carries. The published file
            does not hold it: set it from the tokenizer (`<image>`).
        candidate_resolutions: (width, height) in pixels that the local view may have.
        tile_tag: Only "2D": a newline after each row, a separator between the views.
        global_view_pos: Only "head": the global view comes first.
        projector_depth: Linear layers of the projector, at least 2.
        projector_mlp_ratio: Hidden width of the projector in units of the decoder's width.
        downsample_ratio: This many patches in either direction become one visual token.
    """

    model_type = "deepseek_vl_v2"
    sub_configs = {  # noqa: RUF012 (the library reads a plain class attribute)
        "text_config": DeepseekV2Config,
        "vision_config": SiglipVisionConfig,
    }

    text_config: Any = None
    vision_config: Any = None
    image_token_id: int | None = None
    candidate_resolutions: Any = ((384, 384),)
    tile_tag: str = "2D"
    global_view_pos: str = "head"
    projector_depth: int = 2
    projector_mlp_ratio: int = 1
    downsample_ratio: int = 2
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        language = kwargs.pop("language_config", None)
        projector = kwargs.pop("projector_config", None)
        if language is not None:
            self.text_config = published_text(language)
            self.vision_config = published_vision(self.vision_config or {})
            self._read_projector(PROJECTOR_DEFAULTS | (projector or {}))
        for name, kind in self.sub_configs.items():
            part = getattr(self, name)
            if not isinstance(part, PreTrainedConfig):
                setattr(self, name, kind(**(part or {})))
        super().__post_init__(**kwargs)
        self.vision_config.vision_use_head = False
        self.candidate_resolutions = [list(pair) for pair in self.candidate_resolutions]
        _require("tile_tag", self.tile_tag, "2D")
        _require("global_view_pos", self.global_view_pos, "head")

    def _read_projector(self, projector: dict[str, Any]) -> None:
        _require("projector_type", projector["projector_type"], "downsample_mlp_gelu")
        _require("token_pooling", projector["token_pooling"], False)
        _require("projector input_dim", projector["input_dim"], self.vision_config.hidden_size)
        _require("projector n_embed", projector["n_embed"], self.text_config.hidden_size)
        self.projector_depth = projector["depth"]
        self.projector_mlp_ratio = projector["mlp_ratio"]
        self.downsample_ratio = projector["downsample_ratio"]


AutoConfig.register(DeepseekVL2Config.model_type, DeepseekVL2Config, exist_ok=True)
