"""DeepSeek-VL2 from the library's parts: against plain formulas, itself, and published files."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import needs_encoded_images
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig
from transformers.generation import utils as generation

from ivcp.core.errors import LibraryTooOldError, UserError
from ivcp.models.deepseekvl2 import DeepSeekVL2

try:
    DeepSeekVL2()._model_class()
except LibraryTooOldError as error:
    pytest.skip(str(error), allow_module_level=True)

from ivcp.models.backports.deepseek_vl2 import DeepseekVL2ForConditionalGeneration
from ivcp.models.backports.deepseek_vl2_config import DeepseekVL2Config
from ivcp.models.backports.deepseek_vl2_parts import BiasedRouter
from ivcp.models.backports.deepseek_vl2_processing import (
    DeepseekVL2Images,
    best_resolution,
    letterbox,
)

IMAGE, PAD, EOS = 90, 0, 1
SIZE, PATCH = 28, 4  # 7 x 7 patches, folded to 4 x 4 tokens
TILES = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]

TEXT = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "kv_lora_rank": 24, "q_lora_rank": None, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1, "topk_method": "greedy", "max_position_embeddings": 4096, "bos_token_id": 2,
    "eos_token_id": EOS, "pad_token_id": PAD, "initializer_range": 0.25,
}  # fmt: skip
FULL = {  # how the largest model routes
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True,
    "routed_scaling_factor": 2.0, "n_routed_experts": 6, "n_group": 3, "topk_group": 2,
}  # fmt: skip
PUBLISHED = {  # what the published file of the tiny model would say
    "model_type": "deepseek_vl_v2",
    "candidate_resolutions": [[SIZE * width, SIZE * height] for width, height in TILES],
    "global_view_pos": "head",
    "tile_tag": "2D",
    "torch_dtype": "float32",
    "language_config": TEXT | {"architectures": ["DeepseekV2ForCausalLM"], "lm_head": True},
    "projector_config": {"model_type": "mlp_projector", "input_dim": 32, "n_embed": 64},
    "vision_config": {
        "model_type": "vision", "model_name": "siglip_tiny", "image_size": SIZE,
        "patch_size": PATCH, "width": 32, "layers": 2, "heads": 2, "mlp_ratio": 1.6,
    },
}  # fmt: skip


def tiny(backend: str = "sdpa", **text: Any) -> DeepseekVL2ForConditionalGeneration:
    published = PUBLISHED | {"language_config": PUBLISHED["language_config"] | text}
    config = DeepseekVL2Config(**published, image_token_id=IMAGE, attn_implementation=backend)
    torch.manual_seed(0)
    model = DeepseekVL2ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # biases and norms too, so that each of them counts
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    model.generation_config.pad_token_id = PAD
    return model


@pytest.fixture(scope="module")
def model() -> DeepseekVL2ForConditionalGeneration:
    return tiny()


@pytest.fixture(scope="module")
def processor(model) -> DeepseekVL2Images:
    return DeepseekVL2Images.from_config(model.config)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


SAMPLES: list[list[Any]] = [
    [5, noise(50, 20, 1), 6],  # 2 x 1 tiles
    [3, noise(30, 28, 2), 2, noise(20, 60, 3), 9],  # two images
    [7],  # no image
    [4, noise(9, 90, 4), noise(8, 8, 5), noise(70, 60, 6), 3],  # three: none is cut
]


def prompts(processor: DeepseekVL2Images, samples: list[list[Any]]) -> dict[str, Tensor]:
    images = [[part for part in sample if not isinstance(part, int)] for sample in samples]
    tiles = processor(images)
    counts, rows = iter(tiles.tokens), []
    for sample in samples:
        generator = torch.Generator().manual_seed(len(sample))
        row: list[int] = []
        for part in sample:
            if isinstance(part, int):
                row += torch.randint(3, 80, (part,), generator=generator).tolist()
            else:
                row += [IMAGE] * next(counts)
        rows.append(row)
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    if tiles.tokens:
        inputs["pixel_values"] = tiles.pixel_values
        inputs["images_spatial_crop"] = tiles.images_spatial_crop
    return inputs


def run(model: Any, inputs: dict[str, Tensor], tokens: int = 5, **kwargs: Any) -> Any:
    settings = {"do_sample": False, "eos_token_id": None, "suppress_tokens": [IMAGE]} | kwargs
    return model.generate(
        **inputs,
        max_new_tokens=tokens,
        output_logits=True,
        return_dict_in_generate=True,
        **settings,
    )


def published_weights(model: Any) -> dict[str, Tensor]:
    """The weights under published names, worked out apart from the mapping under test."""
    own = dict(model.state_dict())
    tower, text = "model.vision_tower.", "model.language_model."
    made = {
        "image_newline": own["model.image_newline"],
        "view_seperator": own["model.view_separator"],
        "language.lm_head.weight": own["lm_head.weight"],
        "vision.pos_embed": own[tower + "embeddings.position_embedding.weight"][None],
        "vision.attn_pool.latent": torch.zeros(1, 1, 32),
        "vision.attn_pool.proj.weight": torch.zeros(32, 32),
    }
    for kind in ("weight", "bias"):
        made[f"vision.norm.{kind}"] = own[f"{tower}post_layernorm.{kind}"]
        made[f"vision.patch_embed.proj.{kind}"] = own[f"{tower}embeddings.patch_embedding.{kind}"]
        for layer in (0, 2):
            made[f"projector.layers.{layer}.{kind}"] = own[f"model.projector.layers.{layer}.{kind}"]
        for block in range(2):
            new, old = f"vision.blocks.{block}.", f"{tower}encoder.layers.{block}."
            made[f"{new}attn.qkv.{kind}"] = torch.cat(
                [own[f"{old}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            )
            made[f"{new}attn.proj.{kind}"] = own[f"{old}self_attn.out_proj.{kind}"]
            for number in (1, 2):
                made[f"{new}norm{number}.{kind}"] = own[f"{old}layer_norm{number}.{kind}"]
                made[f"{new}mlp.fc{number}.{kind}"] = own[f"{old}mlp.fc{number}.{kind}"]
    for name, weight in own.items():
        if not name.startswith(text):
            continue
        new = "language.model." + name.removeprefix(text)
        if name.endswith("experts.gate_up_proj"):
            for expert, (gate, up) in enumerate(fused.chunk(2) for fused in weight):
                stem = new.removesuffix("gate_up_proj") + f"{expert}."
                made |= {stem + "gate_proj.weight": gate, stem + "up_proj.weight": up}
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(weight):
                made[new.removesuffix("down_proj") + f"{expert}.down_proj.weight"] = down
        else:
            made[new] = weight
    return {name: weight.clone().contiguous() for name, weight in made.items()}


def write(folder: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> Path:
    """A published folder with its weights in two shards."""
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(weights)
    shards = {f"model-0000{1 + part}-of-00002.safetensors": names[part::2] for part in (0, 1)}
    for shard, held in shards.items():
        save_file({name: weights[name] for name in held}, folder / shard, {"format": "pt"})
    places = {name: shard for shard, held in shards.items() for name in held}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def tower_by_formula(weights: dict[str, Tensor], tiles: Tensor) -> Tensor:
    """Published vision weights run by plain formulas: (T, 49, 32)."""

    def of(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"vision.{name}.weight"], weights[f"vision.{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], *of(name), eps=1e-6)

    x = functional.conv2d(tiles, *of("patch_embed.proj"), stride=PATCH).flatten(2).mT
    x = x + weights["vision.pos_embed"]
    for block in range(2):
        name = f"blocks.{block}."
        qkv = functional.linear(norm(x, name + "norm1"), *of(name + "attn.qkv"))
        q, k, v = qkv.reshape(*x.shape[:2], 3, 2, 16).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.mT / 4).softmax(-1) @ v
        x = x + functional.linear(mixed.transpose(1, 2).flatten(2), *of(name + "attn.proj"))
        wide = functional.linear(norm(x, name + "norm2"), *of(name + "mlp.fc1"))
        wide = functional.gelu(wide, approximate="tanh")
        x = x + functional.linear(wide, *of(name + "mlp.fc2"))
    return norm(x, "norm")


def tokens_by_formula(weights: dict[str, Tensor], tiles: Tensor, crop: tuple[int, int]) -> Tensor:
    """Visual tokens of one image, cell by cell: (N, 64)."""
    grid = functional.pad(tower_by_formula(weights, tiles).view(-1, 7, 7, 32), (0, 0, 0, 1, 0, 1))

    def cell(tile: int, row: int, column: int) -> Tensor:
        square = grid[tile, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        x = square.permute(2, 0, 1).flatten()  # channel, then row, then column
        x = functional.linear(
            x, weights["projector.layers.0.weight"], weights["projector.layers.0.bias"]
        )
        return functional.linear(
            functional.gelu(x),
            weights["projector.layers.2.weight"],
            weights["projector.layers.2.bias"],
        )

    made = []
    for row in range(4):
        made += [cell(0, row, column) for column in range(4)] + [weights["image_newline"]]
    made.append(weights["view_seperator"])
    for row in range(4 * crop[1]):
        for column in range(4 * crop[0]):
            tile = 1 + row // 4 * crop[0] + column // 4
            made.append(cell(tile, row % 4, column % 4))
        made.append(weights["image_newline"])
    return torch.stack(made)


# --- the model


@pytest.mark.parametrize("size", [(30, 28), (50, 20), (20, 60), (60, 58)])
@torch.no_grad()
def test_visual_tokens_follow_the_formulas(model, processor, size):
    tiles = processor([[noise(*size)]])
    output = model.model.get_image_features(tiles.pixel_values, tiles.images_spatial_crop)
    (crop,) = tiles.images_spatial_crop.tolist()
    expected = tokens_by_formula(published_weights(model), tiles.pixel_values, tuple(crop))
    assert [len(tokens) for tokens in output.pooler_output] == tiles.tokens
    torch.testing.assert_close(output.pooler_output[0], expected, atol=2e-5, rtol=1e-5)


def test_visual_tokens_stand_where_the_placeholders_are(model, processor):
    inputs = prompts(processor, SAMPLES[1:2])
    seen: list[Tensor] = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
        images = model.model.get_image_features(
            inputs["pixel_values"], inputs["images_spatial_crop"]
        ).pooler_output
    hook.remove()
    places = inputs["input_ids"][0] == IMAGE
    assert torch.equal(seen[0][0, places], torch.cat(images))
    text = model.get_input_embeddings()(inputs["input_ids"][0, ~places])
    assert torch.equal(seen[0][0, ~places], text)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@torch.no_grad()
def test_generate_equals_forward_of_the_whole(processor, backend):
    model = tiny(backend)
    for sample in SAMPLES:
        inputs = prompts(processor, [sample])
        output = run(model, inputs)
        length = inputs["input_ids"].shape[1]
        whole = inputs | {"input_ids": output.sequences}
        whole["attention_mask"] = torch.ones_like(output.sequences)
        logits = model(**whole).logits[:, length - 1 : -1]
        torch.testing.assert_close(torch.stack(output.logits, 1), logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_left_padded_batch_equals_single_runs(model, processor):
    batch = run(model, prompts(processor, SAMPLES))
    for number, sample in enumerate(SAMPLES):
        alone = run(model, prompts(processor, [sample]))
        for step in range(5):
            torch.testing.assert_close(
                batch.logits[step][number], alone.logits[step][0], atol=1e-4, rtol=1e-4
            )
        assert torch.equal(batch.sequences[number, -5:], alone.sequences[0, -5:])


@torch.no_grad()
def test_beams_equal_single_runs(model, processor):
    batch = run(model, prompts(processor, SAMPLES), num_beams=3)
    for number, sample in enumerate(SAMPLES):
        alone = run(model, prompts(processor, [sample]), num_beams=3)
        assert torch.equal(batch.sequences[number, -5:], alone.sequences[0, -5:])


@torch.no_grad()
def test_sampling_expands_images_with_their_prompts(model, processor):
    needs_encoded_images(model)
    inputs = prompts(processor, SAMPLES)
    torch.manual_seed(3)
    output = run(model, inputs, tokens=2, do_sample=True, num_return_sequences=2)
    greedy = run(model, inputs, tokens=1)
    torch.testing.assert_close(
        output.logits[0], greedy.logits[0].repeat_interleave(2, 0), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_prefill_in_chunks_equals_prefill_at_once(model, processor):
    if not hasattr(generation, "_slice_mm_encoder_output"):
        pytest.skip("generate of this transformers gives all images to each chunk")
    inputs = prompts(processor, SAMPLES[:2])
    chunks = run(model, inputs, prefill_chunk_size=23)
    torch.testing.assert_close(
        torch.stack(chunks.logits), torch.stack(run(model, inputs).logits), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_a_batch_without_images_takes_empty_tiles(model, processor):
    inputs = prompts(processor, [SAMPLES[2]])
    tiles = processor([[]])
    assert tiles.pixel_values.shape == (0, 3, SIZE, SIZE)
    empty = {
        "pixel_values": tiles.pixel_values,
        "images_spatial_crop": tiles.images_spatial_crop,
    }
    for kwargs in ({}, {"num_beams": 2}):
        expected = run(model, inputs, **kwargs).sequences
        assert torch.equal(run(model, inputs | empty, **kwargs).sequences, expected)
    assert torch.equal(model(**inputs | empty).logits, model(**inputs).logits)


@torch.no_grad()
def test_embeddings_may_stand_for_ids(model, processor):
    inputs = prompts(processor, SAMPLES[:1])
    expected = model(**inputs, logits_to_keep=1).logits
    ids = inputs.pop("input_ids")
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model(inputs_embeds=embeds, **inputs, logits_to_keep=1).logits, expected)
    assert expected.shape == (1, 1, 96)


def test_gradients_reach_every_part(model, processor):
    inputs = prompts(processor, SAMPLES[:1])
    output = model(**inputs, labels=inputs["input_ids"])
    output.loss.backward()
    parts = (
        model.model.image_newline,
        model.model.view_separator,
        model.model.projector.layers[0].weight,
        model.model.vision_tower.embeddings.patch_embedding.weight,
    )
    assert all(bool(part.grad.abs().sum() > 0) for part in parts)
    model.zero_grad(set_to_none=True)


def test_mismatched_images_are_told(model, processor):
    inputs = prompts(processor, SAMPLES[:1])
    fewer = inputs | {"input_ids": inputs["input_ids"][:, :-20]}
    fewer["attention_mask"] = inputs["attention_mask"][:, :-20]
    with pytest.raises(ValueError, match=r"hold \d+ image tokens; the images make \d+"):
        model(**fewer)
    with pytest.raises(ValueError, match="calls for 5 tiles"):
        model(**inputs | {"images_spatial_crop": torch.tensor([[2, 2]])})
    with pytest.raises(ValueError, match="come with images_spatial_crop"):
        model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="exactly one of"):
        model()


def test_an_unset_image_token_is_told(model, processor, monkeypatch):
    monkeypatch.setattr(model.config, "image_token_id", None)
    with pytest.raises(UserError, match="tokenizer gives to <image>"):
        model(**prompts(processor, SAMPLES[:1]))


@torch.no_grad()
def test_biased_router_follows_a_plain_loop():
    router = tiny(**FULL).model.language_model.layers[1].mlp.gate
    assert isinstance(router, BiasedRouter)
    hidden = torch.randn(40, 64, generator=torch.Generator().manual_seed(5))
    _, weights, experts = router(hidden)
    for token, state in enumerate(hidden):
        scores = torch.sigmoid(router.weight @ state)
        biased = (scores + router.e_score_correction_bias).tolist()
        groups = sorted(range(3), key=lambda group: -sum(biased[2 * group : 2 * group + 2]))[:2]
        allowed = [value if n // 2 in groups else 0.0 for n, value in enumerate(biased)]
        best = sorted(range(6), key=lambda n: -allowed[n])[:2]
        assert set(best) == set(experts[token].tolist())
        expected = 2 * scores[experts[token]] / scores[best].sum()
        torch.testing.assert_close(weights[token], expected)


# --- published checkpoints


@pytest.mark.parametrize("text", [{}, FULL, {"q_lora_rank": 20}], ids=["small", "full", "q_lora"])
@torch.no_grad()
def test_published_folder_gives_the_same_logits(tmp_path, processor, text):
    model = tiny(**text)
    published = PUBLISHED | {"language_config": PUBLISHED["language_config"] | text}
    write(tmp_path, published_weights(model), published)
    loaded = DeepseekVL2ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    loaded.config.image_token_id = IMAGE
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    inputs = prompts(processor, SAMPLES)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_published_folder_loads_in_bfloat16_with_eager(tmp_path, processor):
    model = tiny(**FULL)
    published = PUBLISHED | {"language_config": PUBLISHED["language_config"] | FULL}
    write(tmp_path, published_weights(model), published)
    loaded = DeepseekVL2ForConditionalGeneration.from_pretrained(
        tmp_path, dtype=torch.bfloat16, attn_implementation="eager", device_map={"": "cpu"}
    )
    assert loaded.dtype == torch.bfloat16
    parts = (loaded, loaded.model.language_model, loaded.model.vision_tower)
    assert {part.config._attn_implementation for part in parts} == {"eager"}
    gate = loaded.model.language_model.layers[1].mlp.gate
    assert gate.e_score_correction_bias.dtype == torch.float32
    loaded.config.image_token_id = IMAGE
    with torch.no_grad():
        assert loaded(**prompts(processor, SAMPLES)).logits.isfinite().all()


@pytest.mark.parametrize("original", [True, False])
@torch.no_grad()
def test_saving_and_loading_again(tmp_path, model, processor, original):
    model.save_pretrained(tmp_path, save_original_format=original)
    again = DeepseekVL2ForConditionalGeneration.from_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    for part in ("text_config", "vision_config"):
        kept, given = getattr(config, part).to_dict(), getattr(model.config, part).to_dict()
        assert {**kept, "dtype": None} == {**given, "dtype": None}
    assert config.candidate_resolutions == model.config.candidate_resolutions
    assert again.config.image_token_id == config.image_token_id == IMAGE
    inputs = prompts(processor, SAMPLES)
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_saving_gives_published_names(tmp_path, model):
    from safetensors import safe_open

    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = {
        name: weight for name, weight in published_weights(model).items() if "attn_pool" not in name
    }
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("vision.blocks.1.attn.qkv.bias"), r"3 missing \(model.vision_tower"),
        (lambda w: w.pop("view_seperator"), r"1 missing \(model.view_separator\)"),
        (lambda w: w.update({"language.model.odd.weight": torch.ones(1)}), r"1 unknown \(model"),
        (lambda w: w.update({"image_newline": torch.ones(3)}), r"1 of the wrong shape \(model"),
        (
            lambda w: w.pop("language.model.layers.2.mlp.experts.3.down_proj.weight"),
            r"1 of the wrong shape \(model.language_model.layers.2.mlp.experts.down_proj\)",
        ),
    ],
)
def test_faulty_weights_are_told(tmp_path, model, change, message):
    weights = published_weights(model)
    change(weights)
    write(tmp_path, weights, PUBLISHED)
    with pytest.raises(UserError, match=message):
        DeepseekVL2ForConditionalGeneration.from_pretrained(tmp_path)


# --- the configuration

SMALL: dict[str, Any] = {  # what the published file states; the rest are defaults of its classes
    "candidate_resolutions": [[384, 384], [384, 768], [768, 384]],
    "global_view_pos": "head",
    "model_type": "deepseek_vl_v2",
    "tile_tag": "2D",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.2",
    "language_config": {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"},
        "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944,
        "kv_lora_rank": 512, "lm_head": True, "max_position_embeddings": 4096,
        "moe_intermediate_size": 1408, "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2,
        "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
        "num_key_value_heads": 32, "q_lora_rank": None, "rm_head": False, "topk_group": 1,
        "topk_method": "greedy", "torch_dtype": "bfloat16", "vocab_size": 102400,
    },
    "projector_config": {"model_type": "mlp_projector"},
    "vision_config": {
        "layers": 27, "mlp_ratio": 3.7362, "model_name": "siglip_so400m_patch14_384",
        "model_type": "vision", "patch_size": 14, "width": 1152,
    },
}  # fmt: skip


def changed(part: str, **values: Any) -> dict[str, Any]:
    return SMALL | {part: SMALL[part] | values}


def test_published_config_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, DeepseekVL2Config)
    text, vision = config.text_config, config.vision_config
    assert (text.model_type, text.num_hidden_layers, text.first_k_dense_replace) == (
        "deepseek_v2", 27, 1)  # fmt: skip
    assert (text.head_dim, text.qk_rope_head_dim, text.qk_nope_head_dim) == (64, 64, 128)
    assert (text.num_key_value_heads, text.q_lora_rank, text.v_head_dim) == (16, None, 128)
    assert (text.bos_token_id, text.eos_token_id) == (100000, 100001)
    assert text.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert (vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers) == (
        1152, 4304, 27)  # fmt: skip
    assert (vision.image_size, vision.patch_size, vision.num_attention_heads) == (384, 14, 16)
    assert not vision.vision_use_head
    assert (config.projector_depth, config.downsample_ratio) == (2, 2)
    assert config.dtype == torch.bfloat16
    assert config.image_token_id is None
    assert DeepseekVL2Images.from_config(config).token_count((2, 1)) == 210 + 1 + 14 * 29


def test_library_terms_build_the_same_model(model):
    config = DeepseekVL2Config(
        text_config=model.config.text_config.to_dict(),
        vision_config={
            "image_size": SIZE, "patch_size": PATCH, "hidden_size": 32, "intermediate_size": 51,
            "num_hidden_layers": 2, "num_attention_heads": 2,
        },
    )  # fmt: skip
    built = DeepseekVL2ForConditionalGeneration(config)
    shapes = {name: weight.shape for name, weight in built.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in model.state_dict().items()}


def test_depth_and_heads_left_out_are_the_published_defaults():
    text = {
        name: value
        for name, value in SMALL["language_config"].items()
        if name not in ("num_hidden_layers", "num_attention_heads")
    }
    config = DeepseekVL2Config(**SMALL | {"language_config": text})
    assert config.text_config.num_hidden_layers == 30
    assert config.text_config.num_attention_heads == 32


@pytest.mark.parametrize(("mscale", "all_dim"), [(1.0, 1.0), (0.707, 0.707), (0.5, 0), (0.7, 1.4)])
def test_yarn_is_that_of_the_published_code(mscale, all_dim):
    scaling = {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
        "beta_slow": 1, "mscale": mscale, "mscale_all_dim": all_dim,
    }  # fmt: skip
    text = TEXT | {"rope_scaling": scaling, "n_routed_experts": None}
    config = DeepseekVL2Config(**PUBLISHED | {"language_config": text}, image_token_id=IMAGE)
    model = DeepseekVL2ForConditionalGeneration(config).model.language_model
    grow = 0.1 * math.log(40)
    scale = 20**-0.5 * (1 + grow * all_dim) ** 2
    assert model.layers[0].self_attn.scaling == pytest.approx(scale)
    rotation = model.rotary_emb(torch.zeros(1, 1, 64), torch.arange(50)[None])[0]
    expected = (1 + grow * mscale) / (1 + grow * all_dim)
    torch.testing.assert_close(rotation.abs(), torch.full((50, 4), expected))


def test_a_dense_decoder_needs_no_experts():
    text = {name: value for name, value in TEXT.items() if name != "n_routed_experts"}
    config = DeepseekVL2Config(**PUBLISHED | {"language_config": text})
    assert config.text_config.first_k_dense_replace == config.text_config.num_hidden_layers


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (changed("language_config", use_mla=False, kv_lora_rank=None), "deepseek-vl2-tiny"),
        (changed("language_config", topk_method="gready"), "topk_method = 'greedy'"),
        (changed("language_config", scoring_func="sigmoid"), "scoring_func"),
        (changed("language_config", norm_topk_prob=True), "norm_topk_prob"),
        (changed("language_config", topk_method="noaux_tc"), "scoring_func for noaux_tc"),
        (changed("language_config", moe_layer_freq=2), "moe_layer_freq"),
        (changed("language_config", n_shared_experts=None), "shared experts"),
        (changed("language_config", rope_scaling={"type": "linear", "factor": 2}), "'yarn'"),
        (changed("projector_config", projector_type="linear"), "projector_type"),
        (changed("projector_config", n_embed=1280), "n_embed"),
        (changed("projector_config", token_pooling=True), "token_pooling"),
        (changed("vision_config", class_token=True), "class_token"),
        (SMALL | {"tile_tag": "1D"}, "tile_tag"),
        (SMALL | {"global_view_pos": "tail"}, "global_view_pos"),
    ],
)
def test_what_is_not_built_is_refused_in_one_sentence(tmp_path, published, message):
    (tmp_path / "config.json").write_text(json.dumps(published))
    with pytest.raises(UserError, match=message):
        DeepseekVL2ForConditionalGeneration.from_pretrained(tmp_path)


# --- the processor


def resolution_by_the_rule(size: tuple[int, int], candidates: list[tuple[int, int]]) -> Any:
    """Most effective pixels, then least waste, then first in the list."""
    width, height = size
    table = []
    for number, (across, down) in enumerate(candidates):
        scale = min(across / width, down / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        table.append((-effective, across * down - effective, number))
    return candidates[min(table)[2]]


def sizes() -> list[tuple[int, int]]:
    rng = random.Random(11)
    made = [
        (1, 40),
        (40, 1),
        (1, 300),
        (300, 1),
        (1, 1),
        (300, 30),
        (30, 300),
        (28, 28),
        (56, 28),
        (29, 28),
        (57, 56),
    ]
    while len(made) < 200:
        made.append((rng.randint(1, 130), rng.randint(1, 130)))
    return made


def test_tiles_follow_the_documented_rule(processor):
    grey = (127, 127, 127)
    candidates = [(SIZE * width, SIZE * height) for width, height in TILES]
    for number, size in enumerate(sizes()):
        image = noise(*size, seed=number)
        wide, high = resolution_by_the_rule(size, candidates)
        made = processor([[image]])
        assert best_resolution(size, candidates) == (wide, high)
        assert made.images_spatial_crop.tolist() == [[wide // SIZE, high // SIZE]]
        assert made.tokens == [20 + 1 + high // 7 * (wide // 7 + 1)]
        if min(round(edge * SIZE / max(size)) for edge in size) == 0:
            continue  # the reference fails here
        views = [ImageOps.pad(image, (SIZE, SIZE), color=grey)]
        local = ImageOps.pad(image, (wide, high), color=grey)
        for top in range(0, high, SIZE):
            for left in range(0, wide, SIZE):
                views.append(local.crop((left, top, left + SIZE, top + SIZE)))
        expected = torch.stack([
            torch.from_numpy(np.array(view)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
            for view in views
        ])  # fmt: skip
        assert torch.equal(made.pixel_values, expected)


def test_areas_tell_where_the_image_lies(processor):
    made = processor([[noise(*size)] for size in sizes()])
    crops = made.images_spatial_crop.tolist()
    ends = zip(sizes(), made.global_areas, made.local_areas, crops, strict=True)
    for (width, height), whole, local, (across, down) in ends:
        views = (whole, (SIZE, SIZE)), (local, (SIZE * across, SIZE * down))
        for (x1, y1, x2, y2), view in views:
            assert x1 <= 0 <= 1 <= x2
            assert y1 <= 0 <= 1 <= y2
            shown = view[0] / (x2 - x1), view[1] / (y2 - y1)  # pixels that the image fills
            scale = min(view[0] / width, view[1] / height)
            assert shown[0] == pytest.approx(max(1, width * scale), abs=0.5001)
            assert shown[1] == pytest.approx(max(1, height * scale), abs=0.5001)
            assert any(math.isclose(*pair) for pair in zip(shown, map(float, view), strict=True))
            assert abs((x1 + x2 - 1) * shown[0]) < 1.001  # centred but for one pixel
            assert abs((y1 + y2 - 1) * shown[1]) < 1.001


def test_an_area_finds_a_marked_pixel():
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 255), (30, 5, 40, 10))  # x from 0.75 to 1, y from 0.25 to 0.5
    picture, (x1, y1, x2, y2) = letterbox(image, (80, 80), (127, 127, 127))
    column = round((0.875 - x1) / (x2 - x1) * 80)
    row = round((0.375 - y1) / (y2 - y1) * 80)
    assert picture.getpixel((column, row)) == (255, 255, 255)
    assert picture.getpixel((40, 5)) == (127, 127, 127)
    assert (x1, y1, x2, y2) == (0, -0.5, 1, 1.5)


def test_more_than_two_images_are_not_cut(processor):
    wide = noise(80, 20)
    assert processor([[wide, wide]]).images_spatial_crop.tolist() == [[3, 1], [3, 1]]
    assert processor([[wide] * 3]).images_spatial_crop.tolist() == [[1, 1]] * 3
    assert processor([[wide], [wide], [wide]]).images_spatial_crop.tolist() == [[3, 1]] * 3


def test_published_sizes():
    images = DeepseekVL2Images()
    assert images.side == 14
    assert len(images.candidate_resolutions) == 23
    assert (images.token_count((1, 1)), images.token_count((2, 1))) == (421, 617)
    assert images.crop((640, 480)) == (2, 2)
    assert images.crop((3000, 300)) == (8, 1)


def test_faulty_images_and_sizes_are_told(processor):
    with pytest.raises(UserError, match="must have pixels"):
        processor([[Image.new("RGB", (0, 5))]])
    with pytest.raises(UserError, match="multiples of image_size = 28"):
        DeepseekVL2Images(image_size=28, candidate_resolutions=((28, 30),))
