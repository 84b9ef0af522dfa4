"""How weights of published DeepSeek-VL2 checkpoints become those of the library's parts.

Importing the module registers the mapping. The model class leaves out the pooling head of the
tower, which DeepSeek-VL2 never runs. Saving applies the mapping in reverse, as for the library's
models, unless `save_pretrained` gets `save_original_format=False`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, ConversionOps, WeightConverter, WeightRenaming


class LeadingAxis(ConversionOps):  # type: ignore[misc]
    """Removes or adds a leading axis of length one, which published position embeddings have."""

    def __init__(self, add: bool) -> None:
        self.add = add

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        (value,) = input_dict.values()
        tensor = value[0] if isinstance(value, list) else value
        return {target_patterns[0]: tensor[None] if self.add else tensor.squeeze(0)}

    @property
    def reverse_op(self) -> LeadingAxis:
        return LeadingAxis(not self.add)


TOWER = [
    WeightRenaming(r"^norm\.", "post_layernorm."),
    WeightRenaming(r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    WeightRenaming(r"^blocks\.", "encoder.layers."),
    WeightRenaming(r"\.norm1\.", ".layer_norm1."),
    WeightRenaming(r"\.norm2\.", ".layer_norm2."),
    WeightRenaming(r"\.attn\.proj\.", ".self_attn.out_proj."),
    WeightConverter(
        r"\.attn\.qkv\.",
        [".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."],
        [Chunk(dim=0)],
    ),
    WeightConverter(
        r"^pos_embed", "embeddings.position_embedding.weight", [LeadingAxis(add=False)]
    ),
]
for transform in TOWER:  # or saving would rename the decoder's projections too
    transform.base_model_prefix, transform.scope_prefix = "model", "vision_tower"

register_checkpoint_conversion_mapping(
    "DeepseekVL2ForConditionalGeneration",
    [  # experts are fused by what the library registers for its own DeepSeek-V2
        WeightRenaming(r"^language\.lm_head\.", "lm_head."),
        WeightRenaming(r"^language\.model\.", "model.language_model."),
        WeightRenaming(r"^projector\.", "model.projector."),
        WeightRenaming(r"^image_newline", "model.image_newline"),
        WeightRenaming(r"^view_seperator", "model.view_separator"),
        WeightRenaming(r"^vision\.", "model.vision_tower."),
        *TOWER,
    ],
    overwrite=True,  # the module may be imported anew
)
