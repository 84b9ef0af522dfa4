"""Every way to generate that users of `transformers` know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_invariants import build
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import DynamicCache, PreTrainedTokenizerFast

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.testing import EOS, IMAGE, PAD, SMALL, START, prompts, single

BATCH = prompts([5, (6, 9), 7], [3, (4, 5), 12, (7, 3), 4], [9, (8, 8), 1], [14])
QUIET = {"suppress_tokens": [EOS, IMAGE, START], "pad_token_id": PAD}
METHODS = ["ivcp", "ivcp_two_pass", "sparsevlm", "fastv", "random"]


@pytest.mark.parametrize("name", METHODS)
def test_sampling_follows_the_seed(name: str, qwen: Any) -> None:
    outs = []
    with pruned(qwen, build(name, 0.4)):
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            outs.append(qwen.generate(**BATCH.inputs, max_new_tokens=8, do_sample=True, **QUIET))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("name", METHODS)
def test_beams_of_a_batch_equal_beams_alone(name: str, qwen: Any) -> None:
    options = {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2, **QUIET}
    with pruned(qwen, build(name, 0.4)) as session:
        together = qwen.generate(**BATCH.inputs, do_sample=False, **options)
        assert len(session.kept) == 3 * len(BATCH.lengths)
        for number, length in enumerate(BATCH.lengths):
            alone = qwen.generate(**single(BATCH, number), do_sample=False, **options)
            rows = together[2 * number : 2 * number + 2, -length - 6 :]
            assert torch.equal(alone, rows)


def test_beams_see_the_reordered_cache(qwen: Any) -> None:
    """The best beam's score equals the sum of its tokens' log probabilities without beams."""
    inputs, pruner = single(BATCH, 1), build("ivcp", 0.4)
    with pruned(qwen, pruner):
        out = qwen.generate(
            **inputs, max_new_tokens=6, num_beams=4, do_sample=False, length_penalty=0.0,
            return_dict_in_generate=True, output_scores=True, **QUIET,
        )  # fmt: skip
        start = inputs["input_ids"].shape[1]
        total, cache = 0.0, DynamicCache(config=qwen.config.text_config)
        step = qwen(**inputs, past_key_values=cache, use_cache=True)
        for token in out.sequences[0, start:]:
            total += step.logits[0, -1].log_softmax(-1)[token].item()
            step = qwen(input_ids=token[None, None], past_key_values=cache, use_cache=True)
    assert out.sequences_scores[0].item() == pytest.approx(total, abs=1e-3)


def test_stop_strings(qwen: Any, greedy: Any) -> None:
    letters = [*map(chr, range(33, 127)), "Ġ", "Ċ"]  # 96 tokens of one printable byte
    model = models.BPE({letter: number for number, letter in enumerate(letters)}, [])
    fast = Tokenizer(model)
    fast.pre_tokenizer, fast.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast)
    inputs = single(BATCH, 0)
    with pruned(qwen, build("ivcp", 0.4)):
        free = greedy(qwen, inputs, 6).sequences[0, inputs["input_ids"].shape[1] :]
        third = tokenizer.decode(free[2:3])
        out = qwen.generate(
            **inputs, max_new_tokens=6, do_sample=False, stop_strings=[third],
            tokenizer=tokenizer, **QUIET,
        )  # fmt: skip
    answer = out[0, inputs["input_ids"].shape[1] :]
    first = free.tolist().index(free[2])
    assert answer.tolist() == free[: first + 1].tolist()


@pytest.mark.parametrize("name", METHODS)
def test_an_image_in_a_later_turn(name: str, qwen: Any) -> None:
    """Text first, then an image on its cache, equals both in one prompt."""
    whole, first = single(BATCH, 0), 4
    positions, _ = qwen.model.get_rope_index(
        whole["input_ids"], whole["mm_token_type_ids"], whole["image_grid_thw"]
    )
    images = {name: whole[name] for name in ("pixel_values", "image_grid_thw")}
    results = []
    with torch.no_grad(), pruned(qwen, build(name, 0.4)) as session:
        session.sample_ids = ["same"]
        for start in (0, first):
            cache = DynamicCache(config=qwen.config.text_config)
            if start:
                qwen(
                    input_ids=whole["input_ids"][:, :start], past_key_values=cache,
                    position_ids=positions[..., :start], use_cache=True,
                )  # fmt: skip
            out = qwen(
                input_ids=whole["input_ids"][:, start:], position_ids=positions[..., start:],
                past_key_values=cache, use_cache=True, **images,
            )  # fmt: skip
            results.append((out.logits[:, -5:], session.kept[0] + start, session.cache_lengths))
    (logits, kept, lengths), (others, same, also) = results
    if name != "random":  # its draw depends on where the image stands in the new text
        assert torch.equal(kept, same)
        torch.testing.assert_close(logits, others, atol=1e-4, rtol=1e-5)
    assert lengths == also


@pytest.mark.parametrize("name", METHODS)
def test_second_turn_through_generate(name: str, qwen: Any, greedy: Any) -> None:
    inputs = single(BATCH, 0)
    more = torch.randint(3, 80, (1, 5), generator=torch.Generator().manual_seed(4))
    with pruned(qwen, build(name, 0.4)):
        cache = DynamicCache(config=qwen.config.text_config)
        first = greedy(qwen, inputs, 4, past_key_values=cache).sequences
        dialog = torch.cat([first, more], 1)
        types = torch.zeros_like(dialog)
        types[:, : inputs["input_ids"].shape[1]] = inputs["mm_token_type_ids"]
        second = greedy(
            qwen,
            {"input_ids": dialog, "attention_mask": torch.ones_like(dialog)},
            4,
            past_key_values=cache,
        ).sequences
        stored, logical = cache.layers[-1].keys.shape[2], cache.layers[-1].get_seq_length()
    assert second.shape[1] == dialog.shape[1] + 4
    assert logical == second.shape[1] - 1, "positions count the dropped tokens"
    assert stored < logical


def test_positions_go_on_from_the_original_numbering(qwen: Any, greedy: Any) -> None:
    seen: list[torch.Tensor] = []
    rotary = qwen.model.language_model.rotary_emb
    handle = rotary.register_forward_pre_hook(lambda _, args: seen.append(args[1].clone()))
    inputs = single(BATCH, 0)
    try:
        greedy(qwen, inputs, 4)
        plain, count = list(seen), len(seen)
        with pruned(qwen, build("ivcp", 0.3)):
            greedy(qwen, inputs, 4)
    finally:
        handle.remove()
    assert len(seen) == 2 * count
    for first, second in zip(plain, seen[count:], strict=True):
        assert torch.equal(first, second)


def test_text_only_prompts_are_left_alone(qwen: Any, greedy: Any) -> None:
    inputs = single(BATCH, 3)
    plain = greedy(qwen, inputs)
    with pruned(qwen, build("ivcp", 0.3)):
        same = greedy(qwen, inputs)
    assert torch.equal(torch.cat(plain.logits), torch.cat(same.logits))


@pytest.mark.parametrize("name", METHODS)
def test_without_a_cache(name: str, qwen: Any) -> None:
    inputs = single(BATCH, 0)
    with torch.no_grad(), pruned(qwen, build(name, 0.4)):
        cached = qwen(**inputs, use_cache=True).logits
        plain = qwen(**inputs, use_cache=False).logits
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_before_the_language_model(name: str, qwen: Any, greedy: Any) -> None:
    if name == "random":
        with pruned(qwen, build(name, 0.4, layer=0)) as session:
            greedy(qwen, BATCH.inputs)
        assert session.layer_tokens[0] == session.layer_tokens[-1]
    else:
        field = "layers" if name == "sparsevlm" else "layer"
        value: Any = [0, 2, 3] if name == "sparsevlm" else 0
        with pytest.raises(UserError, match=r"layer must lie in 1 \.\. 5"):
            pruned(qwen, build(name, 0.4, **{field: value})).__enter__()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_bfloat16(name: str, backend: str, greedy: Any) -> None:
    """Half precision runs, keeps the budget, and hands pruners scores in float32."""
    model = SMALL["qwen25vl"].model(backend).bfloat16()
    inputs = {**BATCH.inputs, "pixel_values": BATCH.inputs["pixel_values"].bfloat16()}
    with pruned(model, build(name, 0.4)) as session:
        greedy(model, inputs, 3)
    for kept, spans in zip(session.kept, BATCH.spans, strict=True):
        assert len(kept) == sum(round(0.4 * count) for _, count in spans)
    slots = sum(max(row) for row in session.cache_lengths)
    assert session.cache_bytes == slots * 2 * len(BATCH.lengths) * 2 * 16 * 2


def test_random_does_not_depend_on_the_batch(qwen: Any, greedy: Any) -> None:
    pruner = build("random", 0.4)
    with pruned(qwen, pruner) as session:
        session.sample_ids = ["a", "b", "c", "d"]
        greedy(qwen, BATCH.inputs, 1)
        kept = session.kept
        session.sample_ids = ["b"]
        greedy(qwen, single(BATCH, 1), 1)
        assert torch.equal(session.kept[0], kept[1])
        session.sample_ids = ["other"]
        greedy(qwen, single(BATCH, 1), 1)
        assert not torch.equal(session.kept[0], kept[1])
        session.sample_ids = ["a", "b", "c"]
        with pytest.raises(UserError, match="3 ids for 4 rows"):
            greedy(qwen, BATCH.inputs, 1)


def test_what_cannot_be_pruned_says_so(qwen: Any, greedy: Any) -> None:
    inputs = single(BATCH, 0)
    with pruned(qwen, build("fastv", 0.4)), pytest.raises(UserError, match="static KV cache"):
        greedy(qwen, inputs, cache_implementation="static")
    with pytest.raises(UserError, match="prefill_chunk_size"), pruned(qwen, build("ivcp", 0.4)):
        greedy(qwen, inputs, prefill_chunk_size=16)
    with pytest.raises(UserError, match="supports models of type"):
        pruned(torch.nn.Linear(2, 2), build("ivcp", 0.4)).__enter__()
    qwen.model.language_model.config._attn_implementation = "flex_attention"
    try:
        with pytest.raises(UserError, match="attention backends"):
            pruned(qwen, build("ivcp", 0.4)).__enter__()
    finally:
        qwen.model.language_model.config._attn_implementation = "sdpa"
