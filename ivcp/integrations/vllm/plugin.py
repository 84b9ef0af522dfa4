"""What vLLM loads at its start: the names of the models that prune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ivcp.core.errors import UserError

SERVED: Mapping[str, str] = {
    "Qwen2VLForConditionalGeneration": "PrunedQwen2VL",
    "Qwen2_5_VLForConditionalGeneration": "PrunedQwen25VL",
    "Qwen3VLForConditionalGeneration": "PrunedQwen3VL",
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
            chosen = {"architectures": [SERVED[architecture]]}
            return chosen if settings is None else {**chosen, "ivcp": dict(settings)}
    raise UserError(
        f"vLLM can prune {', '.join(SERVED)}; got {', '.join(config.architectures or ['none'])}: "
        "others number positions by slot there, and pruned tokens would lose their places."
    )
