"""InternVL3.5, whose language model is Qwen3."""

from __future__ import annotations

from dataclasses import replace

from ivcp.testing.families import internvl

FAMILY = replace(
    internvl.FAMILY,
    settings={
        **internvl.FAMILY.settings,
        "text_config": {"model_type": "qwen3", "head_dim": 16},
    },
)
