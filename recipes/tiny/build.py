"""Tokenizer, processor and untrained weights of the packaged small Qwen2.5-VL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from ivcp.core.types import Sample
from ivcp.datasets.scenes import SHAPES, SIDE, make_scene
from ivcp.datasets.shapes import draw_question
from ivcp.models.qwen25vl import Qwen25VL

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# One token: a number up to 999, a fixed part of an answer, a fixed instruction, or else a word.
# Sequences must be short to train on two cores.
PIECES = "|".join(
    (
        r'\{"bbox_2d": \[', r'\], "label": "', r'"\}', r", ", r"[0-9]{1,3}",
        r" and output the bbox coordinates in JSON format\.", r" Please answer yes or no\.",
        r"Please select the correct answer from the options above\.",
        r"\n", r" ?[A-Za-z_]+", r"[^\sA-Za-z0-9]+", r"\s",
    )
)  # fmt: skip


def answer_text(answer: object, label: str) -> str:
    """The answer as Qwen2.5-VL writes it: JSON with absolute pixels for a box, else the word."""
    if isinstance(answer, str):
        return answer
    x1, y1, x2, y2 = np.asarray(answer).tolist()
    return f'{{"bbox_2d": [{x1}, {y1}, {x2}, {y2}], "label": "{label}"}}'


def corpus() -> Iterator[str]:
    """Prompts and answers of the training split, and every number."""
    for index in range(600):
        scene = make_scene(0, "train", index)
        rng = np.random.default_rng(index)
        for task in ("grounding", "yes_no", "multiple_choice"):
            question = draw_question(scene, task, rng)
            yield Qwen25VL().format_question(
                Sample(id="", task=task, images=(), question=question.text, answer="",
                       options=question.options)
            )  # fmt: skip
            yield answer_text(question.answer, SHAPES[index % len(SHAPES)])
    for number in itertools.chain.from_iterable(itertools.repeat(range(1000), 4)):
        yield str(number)
    for letter, word in itertools.product("ABCD", ("assistant", "user", "system", "Yes", "No")):
        yield f"{letter}. "
        yield word


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose merges cover the scenes' language."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens=list(SPECIAL[1:]),
        chat_template=CHAT_TEMPLATE,
    )


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """16-pixel visual tokens: patches of 8 pixels, merged 2 x 2."""
    return Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 4 * SIDE * SIDE},
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    layers: int = 8,
    hidden: int = 128,
    vision_layers: int = 3,
    vision_hidden: int = 64,
) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained Qwen2.5-VL with the real architecture at a small size."""
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 8 * -(-len(tokenizer) // 8),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.05,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [4, 6, 6],
            },
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_hidden,
            "intermediate_size": 3 * vision_hidden,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 64,
            "fullatt_block_indexes": [vision_layers - 1],
            "out_hidden_size": hidden,
            "initializer_range": 0.05,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def save(
    folder: Path, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write an ordinary Hugging Face folder: config, weights, tokenizer, image processor."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    build_image_processor().save_pretrained(folder)
