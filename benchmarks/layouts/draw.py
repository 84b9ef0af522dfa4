"""Draw which tokens IVC-Prune keeps on each family's own geometry.

The models have random weights and few, narrow layers, but the published patches, tiles, resolutions
and rotary frequencies: `python -m benchmarks.layouts.draw`.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from PIL import Image
from torch import Tensor

from ivcp import pruned
from ivcp.core.layout import ImageLayout
from ivcp.core.types import Sample
from ivcp.datasets.scenes import make_scene
from ivcp.models.backports.deepseek_vl2_processing import PUBLISHED_TILES
from ivcp.models.deepseekvl import DeepSeekVL
from ivcp.models.deepseekvl2 import DeepSeekVL2
from ivcp.models.encoding import FULL_AREA
from ivcp.models.gemma3 import Gemma3
from ivcp.models.glm4v import Glm4V
from ivcp.models.hub import HubFamily
from ivcp.models.idefics3 import FAKE, Idefics3
from ivcp.models.internvl import InternVL
from ivcp.models.llava15 import Llava15
from ivcp.models.llava_onevision import LlavaOnevision
from ivcp.models.llavanext import LlavaNext
from ivcp.models.processor import Processor
from ivcp.models.qwen2vl import Qwen2VL
from ivcp.models.qwen3vl import Qwen3VL
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.models.qwen35 import Qwen35
from ivcp.models.qwen_family import QwenFamily
from ivcp.models.smolvlm import SmolVLM
from ivcp.pruners.ivcp import IVCPrune
from ivcp.testing import END, IMAGE, START, VIDEO, random_model
from ivcp.testing.small import VIDEO_END, VIDEO_START
from ivcp.visualize.overlay import draw_overlay

HERE = Path(__file__).parent
TEXT_BEFORE, TEXT_AFTER = 35, 20
KEEP = 0.3

TEXT = {
    "vocab_size": 96, "hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128,
    "max_position_embeddings": 8192, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": 0,
}  # fmt: skip
GLM_TEXT = {key: value for key, value in TEXT.items() if key != "head_dim"}  # 256 / 2
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
QWEN = {
    "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
}  # fmt: skip
CLIP = {**VISION, "model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
AT_336 = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}


def rotary(base: float, **others: Any) -> dict[str, Any]:
    """Rotary settings of a language model."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base, **others}}


@dataclass(frozen=True)
class Geometry:
    """A checkpoint's geometry: patches, tiles, resolutions and rotary frequencies.

    Attributes:
        title: Name of the checkpoint.
        family: The family.
        config: Configuration of the model: published geometry, narrow layers.
        images: Published settings of the image processor; None reads them from `config`.
    """

    title: str
    family: HubFamily
    config: dict[str, Any]
    images: dict[str, Any] | None = None


def llava(square: Literal["pad", "crop"]) -> Geometry:
    """LLaVA-1.5-7B."""
    text = {"model_type": "llama", **TEXT, **rotary(1e4)}
    name = {"pad": "padded to a square", "crop": "cropped to a square"}[square]
    return Geometry(
        f"LLaVA-1.5, {name}", Llava15(square=square),
        {"text_config": text, "vision_config": CLIP}, {**AT_336, "do_pad": square == "pad"},
    )  # fmt: skip


GEOMETRIES = {
    "qwen2vl": Geometry(
        "Qwen2-VL-7B", Qwen2VL(),
        {
            "text_config": {**TEXT, **rotary(1e6, mrope_section=[16, 24, 24])},
            "vision_config": {
                "depth": 2, "embed_dim": 32, "hidden_size": 256, "num_heads": 2, "patch_size": 14,
            },
            **QWEN,
        },
        {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "patch_size": 14},
    ),
    "qwen25vl": Geometry(
        "Qwen2.5-VL-7B", Qwen25VL(),
        {
            "text_config": {**TEXT, **rotary(1e6, mrope_section=[16, 24, 24])},
            "vision_config": {
                "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                "patch_size": 14, "out_hidden_size": 256, "fullatt_block_indexes": [1],
            },
            **QWEN,
        },
        {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "patch_size": 14},
    ),
    "qwen3vl": Geometry(
        "Qwen3-VL-8B", Qwen3VL(),
        {
            "text_config": {
                **TEXT, **rotary(5e6, mrope_section=[24, 20, 20], mrope_interleaved=True),
            },
            "vision_config": {
                "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                "patch_size": 16, "out_hidden_size": 256, "deepstack_visual_indexes": [0],
            },
            **QWEN,
        },
        {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16},
    ),
    "glm4v": Geometry(
        "GLM-4.1V-9B", Glm4V(),
        {
            "text_config": {
                **GLM_TEXT, **rotary(1e4, partial_rotary_factor=0.5, mrope_section=[8, 12, 12]),
            },
            "vision_config": {
                "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                "patch_size": 14, "out_hidden_size": 256,
            },
            "image_start_token_id": START, "image_end_token_id": END, "video_token_id": VIDEO,
            "video_start_token_id": VIDEO_START, "video_end_token_id": VIDEO_END,
        },
        {"size": {"shortest_edge": 12544, "longest_edge": 11760000}, "patch_size": 14},
    ),
    "qwen35": Geometry(
        "Qwen3.5-9B", Qwen35(),
        {
            "text_config": {
                **TEXT, "head_dim": 256, "layer_types": ["full_attention", "linear_attention"],
                **rotary(
                    1e7, mrope_section=[11, 11, 10], mrope_interleaved=True,
                    partial_rotary_factor=0.25,
                ),
            },
            "vision_config": {
                "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                "patch_size": 16, "out_hidden_size": 256,
            },
            **QWEN,
        },
        {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16},
    ),
    "llava15_pad": llava("pad"),
    "llava15_crop": llava("crop"),
    "llavanext": Geometry(
        "LLaVA-NeXT-7B (Vicuna)", LlavaNext(),
        {
            "text_config": {"model_type": "llama", **TEXT, **rotary(1e4)},
            "vision_config": CLIP, "image_grid_pinpoints": PINPOINTS,
        },
        {**AT_336, "image_grid_pinpoints": PINPOINTS},
    ),
    "llava_onevision": Geometry(
        "LLaVA-OneVision-7B", LlavaOnevision(),
        {
            "text_config": {"model_type": "qwen2", **TEXT, **rotary(1e6)},
            "vision_config": {
                **VISION, "model_type": "siglip_vision_model", "image_size": 384,
                "patch_size": 14, "vision_use_head": False,
            },
        },
        {"size": {"height": 384, "width": 384}},
    ),
    "internvl": Geometry(
        "InternVL3-8B", InternVL(),
        {
            "text_config": {"model_type": "qwen2", **TEXT, **rotary(1e6)},
            "vision_config": {**VISION, "image_size": [448, 448], "patch_size": [14, 14]},
            "downsample_ratio": 0.5,
        },
        {"size": {"height": 448, "width": 448}, "crop_to_patches": True, "max_patches": 6},
    ),
    "gemma3": Geometry(
        "Gemma-3-4B", Gemma3(),
        {
            "text_config": {
                **TEXT, "head_dim": 256, "sliding_window": 1024,
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                },
            },
            "vision_config": {
                **VISION, "model_type": "siglip_vision_model", "image_size": 896,
                "patch_size": 14, "vision_use_head": False,
            },
            "boi_token_index": START, "eoi_token_index": END, "mm_tokens_per_image": 256,
        },
        {"size": {"height": 896, "width": 896}},
    ),
    "deepseekvl": Geometry(
        "DeepSeek-VL-1.3B", DeepSeekVL(),
        {
            "text_config": {"model_type": "llama", **TEXT, **rotary(1e4)},
            "vision_config": {
                **VISION, "model_type": "siglip_vision_model", "image_size": 384,
                "patch_size": 16, "vision_use_head": False,
            },
        },
        {"size": {"height": 384, "width": 384}},
    ),
    "deepseekvl2": Geometry(
        "DeepSeek-VL2-small", DeepSeekVL2(),
        {
            "text_config": {
                **TEXT, **rotary(1e4), "num_key_value_heads": 2, "q_lora_rank": None,
                "kv_lora_rank": 32, "qk_rope_head_dim": 64, "qk_nope_head_dim": 32,
                "v_head_dim": 32, "first_k_dense_replace": 2, "head_dim": 64,
            },
            "vision_config": {**VISION, "image_size": 384, "patch_size": 14},
            "candidate_resolutions": [(384 * x, 384 * y) for x, y in PUBLISHED_TILES],
        },
    ),
    "smolvlm": Geometry(
        "SmolVLM2-500M", SmolVLM(),
        {
            "text_config": {"model_type": "llama", **TEXT, **rotary(1e5)},
            "vision_config": {**VISION, "image_size": 512, "patch_size": 16}, "scale_factor": 4,
        },
        {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
    ),
}  # fmt: skip


def scene() -> Image.Image:
    """640 x 400 pixels of a rendered scene, enlarged."""
    rendered = make_scene(0, "test", 21).render()
    return rendered.resize((640, 640), Image.Resampling.BICUBIC).crop((0, 120, 640, 520))


def image_ids(family: HubFamily, text: str) -> list[int]:
    """Token ids of an image's text in the prompt."""
    if not isinstance(family, Idefics3):
        return [START, *[IMAGE] * text.count(family.image_token), END]
    known = {FAKE: START, family.image_token: IMAGE}  # its layout shows in other markers, too
    return [known.setdefault(word, 3 + len(known)) for word in re.findall(r"<[^>]+>|\n", text)]


def keep(geometry: Geometry, image: Image.Image) -> tuple[ImageLayout, Tensor, list[str]]:
    """Layout of an image with areas as fractions of it, (K,) kept tokens, and their reasons."""
    family = geometry.family
    config = family._model_class().config_class(
        **geometry.config, image_token_id=IMAGE, tie_word_embeddings=False
    )
    model = random_model(config)
    if geometry.images is None:
        images = family._images(model.config)
    else:
        images = getattr(transformers, family.image_processor)(**geometry.images)
    sample = Sample(id="", task="yes_no", images=(image,), question="", answer="")
    processed = family.process_images(Processor(None, images, model.config), [sample])
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(3, 80, (TEXT_BEFORE + TEXT_AFTER,), generator=generator).tolist()
    shown = image_ids(family, processed.texts[0])
    ids = torch.tensor([text[:TEXT_BEFORE] + shown + text[TEXT_BEFORE:]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **processed.inputs}
    if isinstance(family, QwenFamily):
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    with (
        torch.no_grad(),
        pruned(model, IVCPrune(keep_ratio=KEEP, layer=1), family=family) as session,
    ):
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    (layout,) = session.layouts[0].images
    area = processed.visible_areas[0] if processed.visible_areas else FULL_AREA
    return layout.on_original(area), session.kept[0], session.reasons[0]


def main(arguments: list[str] | None = None) -> None:
    """Draw some families, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="family", help=", ".join(GEOMETRIES))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the drawings")
    options = parser.parse_args(arguments)
    image = scene()
    for name in options.families or GEOMETRIES:
        layout, kept, reasons = keep(GEOMETRIES[name], image)
        drawing = draw_overlay(
            image, layout=layout, kept=kept.tolist(), reasons=reasons,
            title=f"{GEOMETRIES[name].title}: {layout.length} visual tokens, {KEEP} kept",
        )  # fmt: skip
        drawing.save(options.out / f"{name}.png", optimize=True)
        ivc = torch.isin(layout.tokens, kept[torch.tensor([reason == "ivc" for reason in reasons])])
        print(
            f"{name}: kept {len(kept)} of {layout.length}; "
            f"{int(ivc.sum())} IVC tokens, {int((ivc & layout.on_padding).sum())} on padding"
        )


if __name__ == "__main__":
    main()
