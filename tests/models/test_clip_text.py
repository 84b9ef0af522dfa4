"""The text tower that belongs to a model's vision tower, as a method reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.family import ModelAdapter
from ivcp.core.pruner import ScorePruner
from ivcp.core.view import View
from ivcp.models.llava15 import Llava15
from ivcp.testing import IMAGE, SMALL, prompts
from ivcp.testing.small import CLIP

QUESTION = "is the red ball left of the blue box or right"


@dataclass(frozen=True, kw_only=True)
class MostRelevant(ScorePruner):
    """Keeps what the question is about, by the tower's own text encoder."""

    needs = frozenset({"text_encoder", "question"})

    def score(self, view: View) -> Tensor:
        assert view.question() == QUESTION
        return view.text_relevance()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A small CLIP on disk that takes 6 tokens at a time, and its tokenizer."""
    torch.manual_seed(1)
    text = {
        "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 6, "bos_token_id": 0,
        "eos_token_id": 1,
    }  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=CLIP, projection_dim=12)).eval()
    words = ["<s>", "</s>", "<unk>", *sorted(set(QUESTION.split()))]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder, model, fast


def test_relevance_is_the_cosine_of_clip(clip: tuple[Path, Any, Any]) -> None:
    folder, whole, tokenizer = clip
    model = SMALL["llava15"].model()
    model.model.vision_tower.load_state_dict(whole.vision_model.state_dict())
    inputs = prompts([5, (6, 6), 7], [4, (6, 6), 9], family="llava15").inputs
    seen: list[Tensor] = []

    class Spy(MostRelevant):
        def score(self, view: View) -> Tensor:
            seen.append(super().score(view))
            return seen[-1]

    with (
        torch.no_grad(),
        pruned(model, Spy(layer=3), family=Llava15(text_tower=str(folder))) as session,
    ):
        with pytest.raises(UserError, match=r"reads the question: set session\.questions"):
            model(**inputs)
        session.questions = [QUESTION] * 2
        seen.clear()
        model(**inputs)
    with torch.no_grad():
        states = whole.vision_model(inputs["pixel_values"], output_hidden_states=True)
        patches = whole.visual_projection(
            whole.vision_model.post_layernorm(states.hidden_states[-2][:, 1:])
        )
        ids = tokenizer(QUESTION)["input_ids"]
        assert len(ids) == 11
        rows = [torch.tensor([[0, *ids[start : start + 4], 1]]) for start in (0, 4, 8)]
        words = torch.cat([whole.get_text_features(row).pooler_output for row in rows])
        patches = patches / patches.norm(dim=-1, keepdim=True)
        words = words / words.norm(dim=-1, keepdim=True)
        expected = (patches @ words.T).mean(-1)  # (2, 36)
    torch.testing.assert_close(torch.stack(seen), expected, atol=1e-5, rtol=0)


WITHOUT = [
    name for name, small in SMALL.items() if small.family.text_encoder is ModelAdapter.text_encoder
]


@pytest.mark.parametrize("family", WITHOUT)
def test_a_family_without_one_says_so(family: str) -> None:
    model, pruner = SMALL[family].model(), MostRelevant(layer=3)
    with pytest.raises(UserError, match="needs the signal text_encoder, but"):
        pruned(model, pruner).__enter__()


def test_one_that_is_absent_or_of_another_tower(
    clip: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    model = SMALL["llava15"].model()
    inputs = prompts([5, (6, 6), 7], family="llava15").inputs
    assert IMAGE in inputs["input_ids"]
    for source, sentence in (
        (tmp_path, "could not be loaded .* copy or download it again, or set model.text_tower"),
        (clip[0], "of width 32; the model's"),
    ):
        if source == clip[0]:
            model.model.vision_tower.config.hidden_size = 24
        family = Llava15(text_tower=str(source))
        with pruned(model, MostRelevant(layer=3), family=family) as session:
            session.questions = [QUESTION]
            with pytest.raises(UserError, match=sentence):
                model(**inputs)
