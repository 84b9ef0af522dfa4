"""DeepSeek-VL2 built from the library's own parts; the library has no such model.

SigLIP tower, projector, DeepSeek-V2 decoder, shaped like the library's LLaVA, with its module names
and its `generate`. Published checkpoints load through the library's conversion mapping.

Source: deepseek_vl2/models/modeling_deepseek_vl_v2.py and siglip_vit.py in
deepseek-ai/DeepSeek-VL2.

Differs from the reference: queries and keys are rotated in float32 whatever the model's dtype (the
library's decoder does so; the reference rotates in the model's dtype).

Shapes: M images, T tiles of all images, C decoder width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DeepseekV2Model,
    GenerationMixin,
    PreTrainedModel,
    SiglipVisionModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import (
    LlavaCausalLMOutputWithPast,
    LlavaModelOutputWithPast,
)
from transformers.utils.generic import can_return_tuple

from ivcp.core.errors import UserError
from ivcp.models.backports import deepseek_vl2_weights  # noqa: F401 (registers the mapping)
from ivcp.models.backports.deepseek_vl2_config import DeepseekVL2Config
from ivcp.models.backports.deepseek_vl2_parts import BiasedRouter, DeepseekVL2Projector, lay_out


def _cache(output: Any) -> dict[str, Any]:
    """The cache of an output, by its name since transformers 5.24 or before."""
    name = "cache" if "cache" in output else "past_key_values"
    return {name: output[name]} if name in output else {}


class DeepseekVL2PreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """Base of both models; their parts initialise themselves."""

    config_class = DeepseekVL2Config
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["DeepseekV2DecoderLayer", "SiglipEncoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [r"attn_pool\."]  # noqa: RUF012 (never run)
    _keep_in_fp32_modules_strict = ["e_score_correction_bias"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DeepseekVL2Model):
            deviation = self.config.text_config.hidden_size**-0.5
            initialization.normal_(module.image_newline, std=deviation)
            initialization.normal_(module.view_separator, std=deviation)


class DeepseekVL2Model(DeepseekVL2PreTrainedModel):
    """Vision tower, projector and decoder without the language modelling head.

    Attributes:
        vision_tower: `SiglipVisionModel`; the output of its last norm goes to the projector.
        projector: Patches to visual tokens.
        image_newline: (C,), the last token of each row of visual tokens.
        view_separator: (C,), the token between the two views.
        language_model: `DeepseekV2Model`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_tower = SiglipVisionModel._from_config(config.vision_config)
        self.projector = DeepseekVL2Projector(config)
        self.image_newline = nn.Parameter(torch.empty(config.text_config.hidden_size))
        self.view_separator = nn.Parameter(torch.empty(config.text_config.hidden_size))
        self.language_model = DeepseekV2Model._from_config(config.text_config)
        if config.text_config.topk_method == "noaux_tc":
            for layer in self.language_model.layers[config.text_config.first_k_dense_replace :]:
                layer.mlp.gate = BiasedRouter(config.text_config)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def get_image_features(
        self, pixel_values: Tensor, images_spatial_crop: Tensor, **kwargs: Any
    ) -> Any:
        """Visual tokens of each image.

        Args:
            pixel_values: (T, 3, size, size): for each image its global view, then its tiles.
            images_spatial_crop: (M, 2), tiles in width and height of each image.
            kwargs: Go to the vision tower.

        Returns:
            The tower's output; `pooler_output` is a list of M tensors (tokens, C).

        Raises:
            ValueError: The tiles are not those that the crops call for.
        """
        crops = images_spatial_crop.tolist()
        counts = [1 + width * height for width, height in crops]
        if sum(counts) != len(pixel_values):
            raise ValueError(
                f"images_spatial_crop calls for {sum(counts)} tiles (one global view and width x "
                f"height tiles an image); pixel_values holds {len(pixel_values)}."
            )
        if not counts:
            return BaseModelOutputWithPooling(pooler_output=[])
        output = self.vision_tower(pixel_values, return_dict=True, **kwargs)
        tiles = self.projector(output.last_hidden_state).split(counts)
        ends = self.image_newline, self.view_separator
        output.pooler_output = [
            lay_out(views, (width, height), *(end.to(views.device) for end in ends))
            for views, (width, height) in zip(tiles, crops, strict=True)
        ]
        return output

    def placeholders(self, input_ids: Tensor | None, inputs_embeds: Tensor) -> Tensor:
        """Which positions hold visual tokens, (B, S) bool.

        Raises:
            UserError: `config.image_token_id` was never set.
        """
        token = self.config.image_token_id
        if token is None:
            raise UserError(
                "config.image_token_id is not set (the published config.json has no such key); set "
                "it to the id that the tokenizer gives to <image>."
            )
        if input_ids is not None:
            return input_ids.eq(token)
        embedding = self.get_input_embeddings()(torch.tensor(token, device=inputs_embeds.device))
        return inputs_embeds.eq(embedding).all(-1)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        images_spatial_crop: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Hidden states of the decoder after its last norm.

        Args:
            input_ids: (B, S); every visual token carries `config.image_token_id`.
            pixel_values: (T, 3, size, size), tiles of all images in the order of the prompts.
            images_spatial_crop: (M, 2), tiles in width and height.
            attention_mask: (B, past + S), 1 for real tokens.
            position_ids: (B, S)
            inputs_embeds: (B, S, C) instead of `input_ids`.
            use_cache: Fill and return the cache.
            mm_encoder_outputs: `{"image": ...}`, encoded before by `get_image_features`.
            kwargs: Go to the decoder, with its cache of compressed latents.

        Raises:
            ValueError: Not exactly one of `input_ids` and `inputs_embeds`, pixels without their
                crops, or image tokens that do not match the visual tokens.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        encoded = (mm_encoder_outputs or {}).get("image")
        if pixel_values is not None:
            if encoded is not None or images_spatial_crop is None:
                raise ValueError(
                    "pixel_values come with images_spatial_crop and without mm_encoder_outputs."
                )
            encoded = self.get_image_features(pixel_values, images_spatial_crop, return_dict=True)
        if encoded is not None and len(encoded.pooler_output):
            visual = torch.cat(encoded.pooler_output).to(inputs_embeds)
            is_visual = self.placeholders(input_ids, inputs_embeds)
            if int(is_visual.sum()) != len(visual):
                raise ValueError(
                    f"The prompts hold {int(is_visual.sum())} image tokens; the images make "
                    f"{len(visual)}."
                )
            inputs_embeds = inputs_embeds.masked_scatter(is_visual[..., None], visual)
        output = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return LlavaModelOutputWithPast(
            last_hidden_state=output.last_hidden_state,
            **_cache(output),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class DeepseekVL2ForConditionalGeneration(DeepseekVL2PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """DeepSeek-VL2 with its head; `from_pretrained` reads published and library checkpoints."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = DeepseekVL2Model(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, source: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load weights from a folder or the hub, in published or in library naming.

        Raises:
            UserError: A weight is missing, unknown or of the wrong shape.
        """
        kwargs["ignore_mismatched_sizes"] = True  # reported below, with the other faults
        model, info = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        wrong = {
            "missing": sorted(info["missing_keys"]),
            "unknown": sorted(info["unexpected_keys"]),
            "of the wrong shape": sorted(key[0] for key in info["mismatched_keys"]),
        }
        faults = [f"{len(keys)} {kind} ({keys[0]})" for kind, keys in wrong.items() if keys]
        if faults:
            raise UserError(
                f"The weights in {str(source)!r} are not those of DeepSeek-VL2 with the config "
                f"beside them: {', '.join(faults)}; download the checkpoint again."
            )
        return (model, info) if output_loading_info else model

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        images_spatial_crop: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits, (B, kept, vocabulary), and a loss where there are labels.

        `labels` are (B, S), -100 where there is no loss; `logits_to_keep` is the number of last
        positions that get logits (0: all) or their indices. The rest: `DeepseekVL2Model.forward`.
        """
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            images_spatial_crop=images_spatial_crop,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, keep])
        loss = None
        if labels is not None:
            size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return LlavaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **_cache(output),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
