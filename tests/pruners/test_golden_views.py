"""The releases for LLaVA, InternVL and DeepSeek-VL2: selections, their parts, and logits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from families import DeepseekWindow, LlamaWindow
from hydra.utils import instantiate
from omegaconf import OmegaConf
from recorded import RecordedView
from test_golden import cases, read
from torch import Tensor
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

from ivcp import pruned
from ivcp.core.layout import PromptLayout
from ivcp.core.parts import parts_of
from ivcp.core.pruner import Pruner, Stage
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import Selection, ranks, top
from ivcp.core.similarity import foreground_scores
from ivcp.core.view import View
from ivcp.engine.cache import keep_slots, pruned_layer
from ivcp.models import deepseekvl2, internvl
from ivcp.pruners.ivcp import IVCPrune

CONF = Path(__file__).parents[2] / "conf"
named = {"ids": lambda folder: folder.name}


@dataclass(frozen=True, kw_only=True)
class Recorded(Pruner):
    """Keeps what it is told; earlier caches stay whole, as layer 0's does in the releases."""

    layer: int
    keep: tuple[int, ...]

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer, prune_earlier_kv=False),)

    def select(self, view: View, stage: int) -> Selection:
        return Selection(torch.tensor(self.keep))


def decoded(model: Any, window: Any, pruner: Recorded, embeds: Tensor, steps: int) -> Any:
    """Greedy logits, caches of layers 1 .. k-1 cut by hand: the releases leave layer 0 whole."""
    cache, logits = DynamicCache(config=model.config), []
    with torch.no_grad(), pruned(model, pruner, family=window) as session:
        out = model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        rest = window.layouts(model, [torch.zeros(embeds.shape[1])], None, {})[0].text
        stay = torch.cat([rest, session.kept[0]]).sort().values
        for index in range(1, pruner.layer):
            keep_slots(pruned_layer(cache, index), stay[None], None, embeds.shape[1])
        for _ in range(steps):
            logits.append(out.logits[:, -1])
            token = logits[-1].argmax(-1, keepdim=True)
            out = model(input_ids=token, past_key_values=cache, use_cache=True)
    return torch.cat(logits), cache


@pytest.mark.parametrize("folder", cases("llava15"), **named)
def test_llava_preset_keeps_what_the_release_keeps(folder: Path) -> None:
    case, golden = read(folder)
    preset = OmegaConf.load(CONF / "tuned" / "ivcp__llava15_published.yaml").pruner
    config = OmegaConf.merge(
        {"ratio": 0.5, "pruner": OmegaConf.load(CONF / "pruner" / "ivcp.yaml")},
        {"pruner": preset}, {"pruner": {"layer": case["k"]}},
    )  # fmt: skip
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    with pruned(model, instantiate(config.pruner)) as session:
        logits = model.generate(
            input_ids=golden["input_ids"], pixel_values=golden["pixel_values"], max_new_tokens=1,
            do_sample=False, output_logits=True, return_dict_in_generate=True,
        ).logits[0]  # fmt: skip
    start = case["derived"]["img_start"]
    assert torch.equal(session.kept[0] - start, golden["keep_image"].sort().values)
    torch.testing.assert_close(logits[0], golden["logits"][0], atol=1e-4, rtol=0)


def internlm2(case: dict[str, Any], golden: dict[str, Tensor]) -> LlamaForCausalLM:
    """The recorded InternLM2 as the Llama that it is: queries, keys and values were one matrix."""
    sizes = {k: v for k, v in case["model_config"].items() if k != "rope_scaling"}
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    heads, groups = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    names = {
        "model.tok_embeddings": "model.embed_tokens", "output": "lm_head",
        "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj",
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    }  # fmt: skip
    weights = {}
    for name, value in golden.items():
        if not name.startswith("w."):
            continue
        name = name[2:]
        if "wqkv" in name:
            parts = value.view(groups, heads // groups + 2, -1, value.shape[1])
            layer = name.removesuffix("attention.wqkv.weight")
            for part, states in zip(
                "qkv", (parts[:, :-2], parts[:, -2], parts[:, -1]), strict=True
            ):
                weights[f"{layer}self_attn.{part}_proj.weight"] = states.reshape(-1, value.shape[1])
            continue
        for old, new in names.items():
            name = name.replace(old, new)
        weights[name] = value
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("folder", cases("internvl"), **named)
def test_internvl_equals_the_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, golden = read(folder)
    derived = case["derived"]
    monkeypatch.setattr(internvl, "arrangement", lambda *_: tuple(case["ar"]))
    image = internvl._tiled(derived["img_start"], derived["tiles"], 16, None)
    layout = PromptLayout(derived["S"], (image,))
    assert len(layout.text_queries(image)) == derived["n_text_queries"]
    pruner = IVCPrune(keep_ratio=0.5, layer=case["k"], softmax="prompt")
    # The release scores values of states that were not normalised: its recorded values are given.
    view = RecordedView(image, layout, golden["values"].transpose(0, 1), 1e6)
    picks = torch.zeros(derived["tiles"], 256, dtype=torch.bool)
    picks.scatter_(1, golden["cos_topk"], value=True).scatter_(1, golden["sin_topk"], value=True)
    assert torch.equal(pruner._ivc_tokens(view, parts_of(view)), picks.flatten())
    if "map_in" in golden:
        shown = torch.isin(image.thumbnail_index[:-256], golden["map_in"]).nonzero()[:, 0]
        assert torch.equal(shown, golden["map_out"].sort().values)
    kept, released = pruner.select(view, 0).keep, golden["keep_image"].sort().values
    if "truncated" in folder.name:  # the release cut IVC tokens off here; they stay, seeds too
        lost = kept[~torch.isin(kept, released)]
        assert picks.flatten()[lost].all()
        assert len(kept) == len(released)
    else:
        assert torch.equal(kept, released)
    replay = Recorded(layer=case["k"], keep=tuple(released.tolist()))
    model, window = internlm2(case, golden), LlamaWindow(image, 2)
    with torch.no_grad(), pruned(model, replay, family=window) as session:
        logits = model(inputs_embeds=golden["inputs_embeds"]).logits[:, -1]
    assert torch.equal(session.kept[0], image.tokens[released])
    torch.testing.assert_close(logits, golden["logits"][:1], atol=1e-4, rtol=0)


def deepseek(case: dict[str, Any], golden: dict[str, Tensor]) -> DeepseekV2ForCausalLM:
    """The recorded language model; the library keeps the experts of a layer in one tensor."""
    sizes = {k: v for k, v in case["model_config"].items() if v is not None}
    theta, dense = sizes.pop("rope_theta"), not case["moe"]
    if dense:
        sizes |= {"first_k_dense_replace": sizes["num_hidden_layers"], "topk_method": "greedy"}
    config = DeepseekV2Config(
        **sizes, q_lora_rank=None, rope_parameters={"rope_type": "default", "rope_theta": theta}
    )
    weights = {name[2:]: value for name, value in golden.items() if name.startswith("w.")}
    for layer in range(config.num_hidden_layers):
        experts = f"model.layers.{layer}.mlp.experts"
        if f"{experts}.0.up_proj.weight" not in weights:
            continue
        gate, up, down = (
            torch.stack(
                [weights.pop(f"{experts}.{n}.{part}_proj.weight")
                 for n in range(config.n_routed_experts)]
            )
            for part in ("gate", "up", "down")
        )  # fmt: skip
        weights[f"{experts}.gate_up_proj"] = torch.cat([gate, up], 1)
        weights[f"{experts}.down_proj"] = down
    model = DeepseekV2ForCausalLM(config).eval()
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("folder", cases("deepseek_vl2"), **named)
def test_deepseek_vl2_equals_the_release(folder: Path) -> None:
    case, golden = read(folder)
    derived, (wide, high) = case["derived"], case["wh"]
    start, pads = derived["img_start"], len(case["pad_rows"]) / 2
    shown = (0.0, -pads / (14 - 2 * pads), 1.0, 1 + pads / (14 - 2 * pads))
    image = deepseekvl2.views(start, (wide, high), 14, global_area=shown)
    layout = PromptLayout(derived["S"], (image,), query_offset=2)
    padding = golden["padding_positions"]
    on_padding = (image.tokens[:196] - start)[image.on_padding[:196]]
    assert torch.equal(on_padding, padding[padding % 15 < 14].sort().values)

    # The release's rule from this package's parts; it counts newlines among what it picks from.
    states, view = golden["values"], slice(start, start + 210)
    queries = layout.text_queries(image)
    assert torch.equal(queries, golden["text_query_indices"].sort().values)
    positions = torch.arange(start, start + derived["N"])[None]
    frequencies = case["model_config"]["rope_theta"] ** -(torch.arange(0, 16, 2) / 16)
    scores = rotation_scores(positions, frequencies)
    ivc = torch.zeros(derived["N"], dtype=torch.bool)
    width = 14 * wide + 1
    rows = [(211 + row * width, width) for row in range(14 * high)]
    windows = [(0, 210), (210, 1), *rows]
    limits = [derived["n_cos_global"], 0, *[derived["n_line"]] * len(rows)]
    per_token = torch.tensor(limits).repeat_interleave(torch.tensor([n for _, n in windows]))
    for one in scores:
        ivc |= ranks(one, windows) < per_token
    whole = torch.cat([golden["cos_global_topk"], golden["sin_global_topk"]]).unique()
    assert torch.equal(ivc[:210].nonzero()[:, 0], whole)

    valid = torch.ones(210, dtype=torch.bool)
    valid[14::15] = False
    valid[padding] = False
    by_text, _ = foreground_scores(states[:, queries], states[:, view], 0)
    seeds = top(by_text.masked_fill(~valid, -1), derived["n_seed"])
    assert torch.equal(seeds + start, golden["seed_indices"])
    everything = torch.cat([golden["text_scores"], golden["seed_scores"]]).mean(0)
    again = torch.cat([states[:, queries], states[:, view][:, seeds]], 1)
    final, _ = foreground_scores(again, states[:, view], 0)
    torch.testing.assert_close(final, everything, atol=1e-6, rtol=1e-4)
    room = max(1, 105 - len(whole))
    best = top(final.masked_fill(~valid | ivc[:210], -1), room)
    chosen = torch.cat([best, seeds]).unique()
    assert torch.equal(chosen, golden["map_in"].unique())
    own = torch.full((210,), -1)
    own[image.tokens[:196] - start] = torch.arange(196)
    # Its cells are those of the square view, padding or not; without padding the map is the same.
    plain = deepseekvl2.views(start, (wide, high), 14)
    cells = plain.tokens[196:][torch.isin(plain.thumbnail_index[196:], own[chosen])] - start
    assert torch.equal(cells, golden["map_out"].unique())

    keep = ivc.clone()
    keep[chosen] = True
    keep[cells] = True
    structural = torch.ones(derived["N"], dtype=torch.bool)
    structural[image.tokens - start] = False
    keep |= structural
    assert torch.equal(keep.nonzero()[:, 0], golden["keep_image"].sort().values)

    visual = keep[image.tokens - start].nonzero()[:, 0]
    replay = Recorded(layer=case["k"], keep=tuple(visual.tolist()))
    model, window = deepseek(case, golden), DeepseekWindow(image, 2)
    logits, cache = decoded(
        model, window, replay, golden["inputs_embeds"], len(golden["generated"])
    )
    assert torch.equal(logits.argmax(-1), golden["generated"])
    torch.testing.assert_close(logits, golden["logits"], atol=1e-4, rtol=0)
    lengths = [layer.keys.shape[2] - len(golden["generated"]) for layer in cache.layers]
    assert lengths == golden["kv_lengths_after_prefill"].tolist()
