"""The text tower that belongs to a model's vision tower, as a method reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_clip import QUESTION, SmallClip
from torch import Tensor

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.family import ModelAdapter
from ivcp.core.pruner import ScorePruner
from ivcp.core.view import View
from ivcp.models.llava15 import Llava15
from ivcp.testing import IMAGE, SMALL, prompts


@dataclass(frozen=True, kw_only=True)
class MostRelevant(ScorePruner):
    """Keeps what the question is about, by the tower's own text encoder."""

    needs = frozenset({"text_encoder", "question"})

    def score(self, view: View) -> Tensor:
        assert view.question() == QUESTION
        return view.text_relevance()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> SmallClip:
    return SmallClip.save(tmp_path_factory.mktemp("clip"))


def test_relevance_is_the_cosine_of_clip(clip: SmallClip) -> None:
    model = SMALL["llava15"].model()
    model.model.vision_tower.load_state_dict(clip.model.vision_model.state_dict())
    inputs = prompts([5, (6, 6), 7], [4, (6, 6), 9], family="llava15").inputs
    seen: list[Tensor] = []

    class Spy(MostRelevant):
        def score(self, view: View) -> Tensor:
            seen.append(super().score(view))
            return seen[-1]

    with (
        torch.no_grad(),
        pruned(model, Spy(layer=3), family=Llava15(text_tower=str(clip.folder))) as session,
    ):
        with pytest.raises(UserError, match=r"reads the question: set session\.questions"):
            model(**inputs)
        session.questions = [QUESTION] * 2
        seen.clear()
        model(**inputs)
    expected = clip.relevance(inputs["pixel_values"])  # (2, 36)
    torch.testing.assert_close(torch.stack(seen), expected, atol=1e-5, rtol=0)


WITHOUT = [
    name for name, small in SMALL.items() if small.family.text_encoder is ModelAdapter.text_encoder
]


@pytest.mark.parametrize("family", WITHOUT)
def test_a_family_without_one_says_so(family: str) -> None:
    model, pruner = SMALL[family].model(), MostRelevant(layer=3)
    with pytest.raises(UserError, match="needs the signal text_encoder, but"):
        pruned(model, pruner).__enter__()


def test_one_that_is_absent_or_of_another_tower(clip: SmallClip, tmp_path: Path) -> None:
    model = SMALL["llava15"].model()
    inputs = prompts([5, (6, 6), 7], family="llava15").inputs
    assert IMAGE in inputs["input_ids"]
    for source, sentence in (
        (tmp_path, "could not be loaded .* copy or download it again, or set model.text_tower"),
        (clip.folder, "of width 32; the model's"),
    ):
        if source == clip.folder:
            model.model.vision_tower.config.hidden_size = 24
        family = Llava15(text_tower=str(source))
        with pruned(model, MostRelevant(layer=3), family=family) as session:
            session.questions = [QUESTION]
            with pytest.raises(UserError, match=sentence):
                model(**inputs)
