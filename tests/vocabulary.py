"""Tokenizers for tests: Qwen's own vocabulary, and tokenizers of single bytes for any family."""

from __future__ import annotations

import base64
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

QWEN_SPECIAL = (  # ids from 151643 on
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
LLAVA = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
DEEPSEEK = {
    "bos_token": "<｜begin▁of▁sentence｜>",  # noqa: RUF001
    "eos_token": "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "pad_token": "<｜▁pad▁｜>",  # noqa: RUF001
}
ROLES = {  # tokens with a role, and what else is one token
    "qwen2vl": (QWEN, QWEN_SPECIAL),
    "qwen25vl": (QWEN, QWEN_SPECIAL),
    "qwen3vl": (QWEN, QWEN_SPECIAL),
    "llava15": (LLAVA, ("<image>",)),
    "llavanext": (LLAVA, ("<image>",)),
    "internvl": (QWEN, ("<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>")),
    "deepseekvl": (DEEPSEEK, ("<image_placeholder>",)),
    "deepseekvl2": (
        DEEPSEEK,
        ("<image>", "<|User|>", "<|Assistant|>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>"),
    ),
}

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)
CHATS = {"qwen2vl": SYSTEM + TURNS, "qwen25vl": SYSTEM + TURNS, "qwen3vl": TURNS}


@cache
def qwen_ranks() -> dict[bytes, int]:
    """Id of each piece of Qwen's vocabulary; the file comes with a package that is not imported."""
    try:
        package = distribution("dashscope")
    except PackageNotFoundError:
        pytest.skip("Qwen's vocabulary is absent: pip install dashscope")
    file = Path(str(package.locate_file("dashscope/resources/qwen.tiktoken")))
    lines = (line.split() for line in file.read_bytes().splitlines())
    return {base64.b64decode(piece): int(rank) for piece, rank in lines}


@cache
def _qwen_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in the library's own terms: each piece merges from any two pieces."""
    ranks, letters = qwen_ranks(), bytes_to_unicode()

    def spelled(piece: bytes) -> str:
        return "".join(map(letters.__getitem__, piece))

    merges = []
    for piece in ranks:  # in order of rank
        pairs = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        mergeable = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        mergeable.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(spelled(left), spelled(right)) for left, right in mergeable]
    return {spelled(piece): rank for piece, rank in ranks.items()}, merges


@cache
def qwen_tokenizer(family: str = "qwen25vl") -> Any:
    """The genuine tokenizer of a Qwen-VL family; skips the test where its vocabulary is absent."""
    vocabulary, merges = _qwen_merges()
    tokenizer = Qwen2Tokenizer(vocabulary, merges, padding_side="left", chat_template=CHATS[family])
    tokenizer.add_tokens(list(QWEN_SPECIAL), special_tokens=True)
    tokenizer.eos_token = QWEN["eos_token"]
    return tokenizer


@cache
def byte_tokenizer(family: str) -> Any:
    """One token a byte, the special tokens of a family behind them; BOS in front if it has one."""
    roles, others = ROLES[family]
    vocabulary = {letter: byte for byte, letter in bytes_to_unicode().items()}
    core = Tokenizer(BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([*roles.values(), *others]))
    core.add_special_tokens(special)
    if bos := roles.get("bos_token"):
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, **roles, padding_side="left", chat_template=CHATS.get(family)
    )
