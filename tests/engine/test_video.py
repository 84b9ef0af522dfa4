"""Videos: frames are grids, a budget holds for each video, time stamps between frames stay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from expected import EXPECTED
from test_invariants import PRUNERS, build
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.models import find_family
from ivcp.testing import SMALL, model_of
from ivcp.testing.small import token_types

ROWS, COLUMNS = 3, 4
FAMILIES = [name for name, small in SMALL.items() if small.video]


def frames_of(family: str) -> tuple[int, int]:
    """Frames of two videos."""
    return (3, 3) if EXPECTED[family].equal_frames else (2, 3)


def video_prompt(
    family: str, *, image: bool = False, lengths: Sequence[int] = ()
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Perhaps an image, then videos, with text between; prompt indices of each one's tokens."""
    lengths = lengths or frames_of(family)
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(3))
    small, tokens, ids = SMALL[family], [], [11, 12, 13]
    assert small.video is not None
    parts = [small.image(small.images[0], draw)] if image else []
    parts += [small.video(frames, ROWS, COLUMNS, draw) for frames in lengths]
    for part in parts:
        tokens.append(part.tokens + len(ids))
        ids += [*part.ids, 30, 31, 32, 33]
    input_ids = torch.tensor([ids])
    names = {name for part in parts for name in part.inputs}
    inputs = {
        name: torch.cat([part.inputs[name] for part in parts if name in part.inputs])
        for name in names
    }
    inputs |= {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if small.token_types:
        inputs["mm_token_type_ids"] = token_types(input_ids)
    return inputs, tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PRUNERS)
def test_budget_and_keeping_everything(family: str, name: str, greedy: Any) -> None:
    model = model_of(family)
    inputs, parts = video_prompt(family, image=not EXPECTED[family].videos_alone)
    plain = greedy(model, inputs, 3)
    with pruned(model, build(name, 1.0, family)):
        assert torch.equal(torch.cat(plain.logits), torch.cat(greedy(model, inputs, 3).logits))
    with pruned(model, build(name, 0.4, family)) as session:
        greedy(model, inputs, 3)
    if name == "none":
        return
    (kept,) = session.kept
    for tokens in parts:
        assert torch.isin(kept, tokens).sum() == round(0.4 * len(tokens))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PRUNERS)
def test_batch_equals_single_and_backends_agree(family: str, name: str, greedy: Any) -> None:
    other = frames_of(family)[0] if EXPECTED[family].equal_frames else 4
    rows = [video_prompt(family), video_prompt(family, lengths=[other])]
    parts = [inputs for inputs, _ in rows]
    pad = partial(pad_sequence, batch_first=True, padding_side="left")
    of_tokens = {"input_ids", "attention_mask", "mm_token_type_ids"} & parts[0].keys()
    together = {
        key: pad([part[key][0] for part in parts])
        if key in of_tokens
        else torch.cat([part[key] for part in parts])
        for key in parts[0]
    }
    kept = []
    for backend in ("sdpa", "eager"):
        model = model_of(family, backend)
        with pruned(model, build(name, 0.3, family)) as session:
            both = greedy(model, together)
            kept.append(session.kept)
            counts = session.layer_tokens[-1], session.cache_lengths[-1]
            for number, (inputs, _) in enumerate(rows):
                alone = greedy(model, inputs)
                length = inputs["input_ids"].shape[1]
                assert torch.equal(both.sequences[number, -length - 3 :], alone.sequences[0])
                assert torch.equal(session.kept[0], kept[-1][number])
                visual = sum(map(len, rows[number][1]))
                left = length - visual + len(session.kept[0])
                assert [row[number] for row in counts] == [left, left]
                assert torch.equal(session.kept[0], session.kept[0].unique())
    assert all(map(torch.equal, *kept))


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_grids(family: str, greedy: Any) -> None:
    model = model_of(family)
    inputs, videos = video_prompt(family)
    with pruned(model, build("ivcp", 0.4)) as session:
        greedy(model, inputs, 1)
        alone = session.layouts[0]
        if not EXPECTED[family].videos_alone:
            greedy(model, inputs, 1, num_beams=3)
            assert [one.images for one in session.layouts] == [alone.images] * 3
        model(**inputs)  # grids from the inputs instead of positions
        assert session.layouts[0].images == alone.images
    assert [len(video.grids) for video in alone.images] == list(frames_of(family))
    for video, tokens in zip(alone.images, videos, strict=True):
        assert torch.equal(video.tokens, tokens)
        assert {grid.kind for grid in video.grids} == {"frame"}
        asking = alone.text_queries(video)
        assert not torch.isin(asking, torch.cat(videos)).any()
        assert asking.min() >= video.stop + 2


def test_ivc_tokens_stand_in_every_frame(greedy: Any) -> None:
    model = model_of("qwen25vl")
    inputs, videos = video_prompt("qwen25vl")
    with pruned(model, build("ivc", 0.5)) as session:
        greedy(model, inputs, 1)
    for tokens in videos:
        for frame in tokens.split(ROWS * COLUMNS):
            share = int(torch.isin(session.kept[0], frame).sum())
            assert abs(share - ROWS * COLUMNS // 2) <= 1


def test_a_video_for_a_family_of_images_is_refused() -> None:
    family = "llava15"
    model = model_of(family)
    assert not find_family(model).takes_videos
    ids = torch.tensor([[5, 6, 7]])
    with (
        pruned(model, build("ivcp", 0.5)),
        pytest.raises(UserError, match=r"takes images only.*pass single frames"),
    ):
        model(input_ids=ids, pixel_values_videos=torch.zeros(1, 3, 24, 24))
    assert set(FAMILIES) == {name for name, small in SMALL.items() if small.family.takes_videos}
