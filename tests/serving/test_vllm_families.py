"""Random models of the other families: features of DeepStack are pruned, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer
from vllm.config import CompilationMode, CUDAGraphMode

from ivcp.core.errors import UserError
from ivcp.integrations.vllm.llava15 import PrunedLlava15
from ivcp.integrations.vllm.settings import NO_TOWER
from ivcp.testing.small import random_model
from serving.served import (
    METHODS,
    TINY,
    TOWER_METHODS,
    Reference,
    answers,
    named,
    request,
    scenes,
    started,
)

VISION: dict[str, dict[str, Any]] = {
    "llava": {},
    "qwen2_vl": {"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 2},
    "qwen3_vl": {
        "depth": 5, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2,
        "out_hidden_size": 128, "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0, 1, 2],
    },
}  # fmt: skip
SCENES = scenes()


def llava(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A LLaVA-1.5 with the same sizes, as many visual tokens, and a placeholder of its own."""
    text = {**settings["text_config"], "model_type": "llama", "vocab_size": 1504}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 192, "patch_size": 16,
        "projection_dim": 64, "initializer_range": 0.2,
    }  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    side = {"height": 192, "width": 192}
    processor = {"image_processor_type": "CLIPImageProcessor", "crop_size": side, "size": side}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return {
        "model_type": "llava", "text_config": text, "vision_config": vision,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "tie_word_embeddings": True,
    }  # fmt: skip


def folder_of(kind: str, folder: Path) -> Path:
    """A checkpoint with random weights and the packaged model's tokenizer."""
    settings = json.loads((TINY / "config.json").read_text())
    text, rope = settings["text_config"], settings["text_config"]["rope_parameters"]
    text |= {"model_type": f"{kind}_text", "initializer_range": 0.2}
    if kind == "qwen3_vl":
        text |= {"head_dim": 32, "rope_parameters": {**rope, "mrope_interleaved": True}}
    patches = ("patch_size", "spatial_merge_size", "temporal_patch_size", "in_channels")
    vision: dict[str, Any] = {name: settings["vision_config"][name] for name in patches}
    vision |= {**VISION[kind], "initializer_range": 0.2}
    settings |= {"model_type": kind, "vision_config": vision}
    settings.pop("architectures")
    for path in TINY.glob("*"):
        if path.name not in ("config.json", "model.safetensors", "README.md"):
            shutil.copy(path, folder)
    if kind == "llava":
        settings = llava(settings, folder)
    (folder / "config.json").write_text(json.dumps(settings))
    random_model(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    if kind == "llava":  # checkpoints on the hub have the names of older versions
        weights = load_file(folder / "model.safetensors")
        old = {
            k.replace("vision_tower.", "vision_tower.vision_model."): w for k, w in weights.items()
        }
        save_file(old, folder / "model.safetensors", {"format": "pt"})
    shutil.copy(TINY / "generation_config.json", folder)
    return folder


@pytest.fixture(scope="module", params=VISION)
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    with started(folder) as engine:
        yield engine


@pytest.mark.parametrize("settings", [*METHODS, *TOWER_METHODS], ids=named)
def test_random_models(engine: Any, reference: Reference, settings: dict[str, Any]) -> None:
    reads_tower = settings in TOWER_METHODS and settings["pruner"] != "cdpruner"
    if reads_tower and reference.model.config.model_type in NO_TOWER:
        with pytest.raises(ValueError, match="needs the signal"):
            answers(engine, [request(SCENES[0], settings, reference)], reference)
        return
    wanted = [answer for answer, _ in reference.answers(SCENES, settings)]
    prompts = [request(scene, settings, reference) for scene in SCENES]
    served = answers(engine, prompts, reference)
    # a random tower attends so alike to many tokens that rounding may swap two of them
    swapped = 3 if settings in TOWER_METHODS else 0
    assert sum(a != b for a, b in zip(served, wanted, strict=True)) <= swapped
    if settings:
        plain = [answer for answer, _ in reference.answers(SCENES, {})]
        assert sum(a != b for a, b in zip(plain, wanted, strict=True)) > len(SCENES) // 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pipeline_parallel_size": 2}, "cannot be spread over a pipeline"),
        ({"speculative_config": object()}, "Speculative decoding was not tested"),
        ({"compile_mm_encoder": True}, "must run as it is"),
        ({"mm_encoder_tp_mode": "data"}, "must run as it is"),
        ({"cudagraph_mode": CUDAGraphMode.FULL}, "Full CUDA graphs of prefills"),
        ({"mode": CompilationMode.VLLM_COMPILE}, "vLLM compiles Llama for a single row"),
    ],
)
def test_engines_that_are_refused(options: dict[str, Any], sentence: str) -> None:
    usual = {"pipeline_parallel_size": 1, "speculative_config": None}
    usual |= {"compile_mm_encoder": False, "mm_encoder_tp_mode": "weights"}
    usual |= {"cudagraph_mode": CUDAGraphMode.PIECEWISE, "mode": CompilationMode.NONE}
    settings = SimpleNamespace(**usual)
    settings.parallel_config = settings.compilation_config = settings
    settings.model_config = settings.multimodal_config = settings
    PrunedLlava15.check_engine(settings)
    for name, value in options.items():
        setattr(settings, name, value)
    with pytest.raises(UserError, match=sentence):
        PrunedLlava15.check_engine(settings)
