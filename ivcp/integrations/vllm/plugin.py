"""What vLLM loads at its start: the names of the models that prune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ivcp.core.errors import UserError

SERVED: Mapping[str, str] = {
    "Qwen2VLForConditionalGeneration": "PrunedQwen2VL",
    "Qwen2_5_VLForConditionalGeneration": "PrunedQwen25VL",
    "Qwen3VLForConditionalGeneration": "PrunedQwen3VL",
    "LlavaForConditionalGeneration": "PrunedLlava15",
}
"""Architectures of checkpoints, and those that serve them."""


def register() -> None:
    """Make the models known to vLLM; it calls this in each of its processes, perhaps twice.

    Entry point `ivcp` of the group `vllm.general_plugins`.
    """
    from vllm import ModelRegistry

    for name in SERVED.values():
        module = name.removeprefix("Pruned").lower()
        ModelRegistry.register_model(name, f"ivcp.integrations.vllm.{module}:{name}")


def three_rows(text_config: Any) -> dict[str, Any]:
    """RoPE's parameters as those of M-RoPE, which is the same where its three positions are equal.

    Args:
        text_config: Configuration of the language model.
    """
    heads = text_config.num_attention_heads
    half = (getattr(text_config, "head_dim", None) or text_config.hidden_size // heads) // 2
    third = half // 3
    return {**text_config.rope_parameters, "mrope_section": [half - 2 * third, third, third]}


def hf_overrides(config: Any, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`hf_overrides` of an engine that prunes: `LLM(path, hf_overrides=hf_overrides(config))`.

    Args:
        config: Configuration of the checkpoint, as `AutoConfig.from_pretrained` gives it.
        settings: The pruner of requests that name none, such as {"pruner": "divprune",
            "keep_ratio": 0.5}; None prunes nothing there.

    Raises:
        UserError: No model of this architecture can be served.
    """
    for architecture in config.architectures or ():
        if architecture in SERVED:
            chosen: dict[str, Any] = {"architectures": [SERVED[architecture]]}
            if settings is not None:
                chosen["ivcp"] = dict(settings)
            if architecture == "LlavaForConditionalGeneration":
                chosen["text_config"] = {"rope_parameters": three_rows(config.get_text_config())}
            return chosen
    raise UserError(
        f"vLLM can prune {', '.join(SERVED)}; got {', '.join(config.architectures or ['none'])}: "
        "others number positions by slot there, and pruned tokens would lose their places."
    )
