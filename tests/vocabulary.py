"""Tokenizers for tests: Qwen's own vocabulary, and tokenizers of single bytes for any family."""

from __future__ import annotations

import base64
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from expected import EXPECTED
from expected.qwen2vl import ROLES, SPECIAL
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


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
    tokenizer = Qwen2Tokenizer(
        vocabulary, merges, padding_side="left", chat_template=EXPECTED[family].chat
    )
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    tokenizer.eos_token = ROLES["eos_token"]
    return tokenizer


@cache
def byte_tokenizer(family: str) -> Any:
    """One token a byte, the special tokens of a family behind them; BOS in front if it has one."""
    expected = EXPECTED[family]
    roles = expected.roles
    vocabulary = {letter: byte for byte, letter in bytes_to_unicode().items()}
    core = Tokenizer(BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([*roles.values(), *expected.special]))
    core.add_special_tokens(special)
    if bos := roles.get("bos_token"):
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, **roles, padding_side="left", chat_template=expected.chat
    )
