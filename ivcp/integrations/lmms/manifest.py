"""What lmms-eval finds under the entry point `lmms_eval.models`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """`--model ivcp` is `PrunedModel`, which gets contexts as text ("simple")."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="ivcp", simple_class_path="ivcp.integrations.lmms.model.PrunedModel"
    )
