"""The releases of methods that look at the vision tower, whole towers with recorded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_golden import cases, read
from torch import Tensor, nn

from ivcp import pruned
from ivcp.pruners.visionzip import VisionZip
from ivcp.testing import IMAGE, SMALL, random_model


def llava_with(case: dict[str, Any], golden: dict[str, Tensor]) -> Any:
    """LLaVA with the recorded tower, whose features go to the language model as they are."""
    vision = case["vision_config"]
    text = {"hidden_size": vision["hidden_size"]}
    model = random_model(SMALL["llava15"].config(text=text, vision=vision))
    weights = {name[2:]: value for name, value in golden.items() if name.startswith("w.")}
    known = set(model.model.vision_tower.state_dict())
    named = {name if name in known else name.removeprefix("vision_model."): value
             for name, value in weights.items()}  # fmt: skip
    model.model.vision_tower.load_state_dict(named)
    model.model.multi_modal_projector = nn.Identity()
    return model


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("folder", cases("visionzip"), ids=lambda folder: folder.name)
def test_visionzip_equals_the_release(folder: Path, backend: str) -> None:
    case, golden = read(folder)
    model = llava_with(case, golden)
    model.set_attn_implementation(backend)
    size, total = case["g"] ** 2, case["dominant"] + case["contextual"]
    ids = torch.tensor([[3, 4, *[IMAGE] * size, 5, 6, 7]])
    entering: list[Tensor] = []

    class Spy(VisionZip):
        def select(self, view: Any, stage: int) -> Any:
            heads = case["vision_config"]["num_attention_heads"]
            received = heads * view.tower_attention(queries="cls")  # the release sums over heads
            torch.testing.assert_close(received, golden["cls_scores"], atol=1e-5, rtol=1e-4)
            keys = view.tower_keys().mean(0)
            torch.testing.assert_close(keys, golden["metric"][1:], atol=1e-4, rtol=1e-4)
            return super().select(view, stage)

    pruner = Spy(keep_ratio=total / size, contextual_share=case["contextual"] / total)
    with torch.no_grad(), pruned(model, pruner) as session:
        norm = model.model.language_model.layers[0].input_layernorm
        handle = norm.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
        model(input_ids=ids, pixel_values=golden["pixel_values"])
        handle.remove()
    dominant = [
        t for t, why in zip(session.kept[0], session.reasons[0], strict=True) if why == "dominant"
    ]
    expected = golden["all_indices"][1:].sort().values - 1
    assert torch.equal(torch.stack(dominant) - 2, expected)
    (states,) = entering
    torch.testing.assert_close(states[0, 2:-3], golden["output"], atol=1e-4, rtol=0)
