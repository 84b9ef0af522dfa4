"""Models that think first: only what they answer then is read."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import GptOssConfig, InternVLConfig
from vocabulary import byte_tokenizer

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.models.glm4v import Glm4V
from ivcp.models.internvl import InternVL
from ivcp.models.processor import Processor
from ivcp.models.thinking import final_answer

QUESTION = Sample(id="s", task="yes_no", images=(), question="Is it?", answer="", verbatim=True)
SWITCH = (
    "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}/nothink{% endif %}<|assistant|>"
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>[1, 2, 3, 4]? No.</think><answer>[5, 6, 7, 8]</answer>", "[5, 6, 7, 8]"),
        ("<think>Yes?</think>\n\nNo.", "No."),
        ("<think></think>No.", "No."),
        ("thought</think> No.", "No."),  # the prompt may open the thought
        ("<think>Yes, since", ""),
        ("No.", "No."),
        ("<answer>No.</answer>", "No."),
        ("<answer>No.", "No."),
        ("", ""),
    ],
)
def test_only_the_answer_is_read(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def decoded(family: InternVL | Glm4V, name: str, text: str) -> str:
    tokenizer = byte_tokenizer(name)
    tokens = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
    return family.decode(Processor(tokenizer, None), tokens)[0]


def test_internvl_thinks_by_its_system_prompt() -> None:
    tokenizer = byte_tokenizer("internvl35")
    plain = InternVL().prompt(tokenizer, QUESTION)
    thinking = InternVL(thinking=True).prompt(tokenizer, QUESTION)
    assert "rigorously follows this response protocol:\n1. First," in thinking
    assert thinking.partition("<|im_end|>")[2] == plain.partition("<|im_end|>")[2]
    text = "<think>Yes?</think>\nNo."
    assert decoded(InternVL(thinking=True), "internvl35", text) == "No."
    assert decoded(InternVL(), "internvl35", text) == text


def test_glm_marks_of_boxes_and_thoughts_are_left_out() -> None:
    family = Glm4V()
    text = "<think>[1, 2, 3, 4]?</think><answer><|begin_of_box|>[[5,6,7,8]]<|end_of_box|></answer>"
    assert decoded(family, "glm4v", text) == "[[5,6,7,8]]"
    assert family.parse_box(decoded(family, "glm4v", text)) == (5, 6, 7, 8)
    assert decoded(family, "glm4v", "<think>[1, 2, 3, 4]?") == ""


def test_a_thought_that_the_prompt_opens_is_no_answer() -> None:
    tokenizer = copy.deepcopy(byte_tokenizer("glm4v"))
    tokenizer.chat_template = SWITCH + "\n<think>"
    tokens = torch.tensor([tokenizer("It is [1, 2, 3, 4]", add_special_tokens=False).input_ids])
    assert Glm4V().decode(Processor(tokenizer, None), tokens) == [""]


def test_thinking_is_switched_off_where_the_template_can(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(byte_tokenizer("glm4v"))
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no switch for thinking: use model\.thinking=true"):
        Glm4V(path=str(tmp_path), thinking=False)._tokenizer(None)
    tokenizer.chat_template = tokenizer.chat_template + SWITCH.partition("{% endfor %}")[2]
    tokenizer.save_pretrained(tmp_path)
    family = Glm4V(path=str(tmp_path), thinking=False)
    assert "/nothink" in family.prompt(family._tokenizer(None), QUESTION)
    assert "/nothink" not in Glm4V(path=str(tmp_path)).prompt(tokenizer, QUESTION)


def test_gpt_oss_is_refused_before_weights(tmp_path: Path) -> None:
    InternVLConfig(text_config=GptOssConfig(num_hidden_layers=2)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'gpt_oss', whose layers with sliding windows cannot"):
        InternVL(path=str(tmp_path)).load()
