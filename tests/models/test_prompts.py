"""What each family is asked, token by token, and how its answers are read."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
import torch
from expected import EXPECTED
from expected.qwen2vl import HELPFUL, SPECIAL
from PIL import Image
from processing import FAMILIES, setup
from tokenizers import processors
from vocabulary import byte_tokenizer, qwen_ranks, qwen_tokenizer

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame
from ivcp.core.types import Sample, Task
from ivcp.models.internvl import InternVL
from ivcp.models.llavanext import LlavaNext
from ivcp.models.processor import Processor
from ivcp.models.qwen2vl import Qwen2VL
from ivcp.testing import SMALL

QWENS = ("qwen2vl", "qwen25vl", "qwen3vl")
PICTURE = Image.radial_gradient("L").convert("RGB")


def sample(task: Task, *sizes: tuple[int, int], name: str = "s", **fields: Any) -> Sample:
    images = tuple(PICTURE.resize(size) for size in sizes)
    questions = {"grounding": "Left CAT", "yes_no": "Is there a cat?", "multiple_choice": "Which?"}
    options = ("cat", "a dog") if task == "multiple_choice" else ()
    asked = {"question": questions[task], "options": options} | fields
    return Sample(id=name, task=task, images=images, answer="", **asked)


# --- prompts: what the releases and the model cards state, written out again


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_the_documented_ones(name, number):
    task: Task = ("grounding", "yes_no", "multiple_choice")[number]
    family, question = FAMILIES[name](), EXPECTED[name].questions[number]
    for count in (0, 1, 2):
        asked = sample(task, *[(3, 3)] * count)
        assert family.format_question(asked) == question
        prompt = family.prompt(byte_tokenizer(name), asked)
        assert prompt == EXPECTED[name].prompt(question, count)


def test_every_family_is_asked_here():
    assert set(EXPECTED) == set(SMALL)


def test_mistral_has_its_own_conversation():
    family = LlavaNext(chat="mistral")
    prompt = family.prompt(None, sample("yes_no", (3, 3)))
    assert prompt == "[INST] <image>\nIs there a cat? [/INST]"
    with pytest.raises(UserError, match="vicuna or mistral"):
        LlavaNext(chat="llama")


# --- Qwen's tokenizer against published ids


def test_the_vocabulary_is_qwens():
    tokenizer = qwen_tokenizer()
    assert len(qwen_ranks()) == 151643
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [*range(151643, 151657)]
    published = {
        "Describe this image.": [74785, 419, 2168, 13],
        "How many r in strawberry.": [4340, 1657, 435, 304, 72600, 13],
        "What is 2+2?": [3838, 374, 220, 17, 10, 17, 30],
        "您好, 请从 1 数到 10000000.": [
            111308, 11, 220, 14880, 45181, 220, 16, 47685, 26939, 220, 16, *[15] * 7, 13,
        ],
        HELPFUL: [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198],
    }  # fmt: skip
    for text, ids in published.items():
        assert tokenizer(text)["input_ids"] == ids
    for text in ("naïve façade, “quoted” …", "الرؤية 👁‍🗨 видение 시각", "\t a  b\n\n c\r\n", "١٢٣"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    decomposed = unicodedata.normalize("NFD", "é")
    assert tokenizer(decomposed)["input_ids"] == tokenizer("é")["input_ids"]


@pytest.mark.parametrize("name", QWENS)
def test_qwen_prompts_token_by_token(name, tmp_path):
    family, processor = setup(name, tmp_path, qwen_tokenizer(name))
    asked = sample("yes_no", (40, 24), (9, 60), question="What is 2+2?")
    encoded = family.encode(processor, [asked])
    counts = (encoded.inputs["image_grid_thw"].prod(1) // 4).tolist()
    assert counts == [15, 8]
    system = [] if name == "qwen3vl" else qwen_tokenizer()(HELPFUL)["input_ids"]
    expected = [
        *system, 151644, 872, 198,
        151652, *[151655] * 15, 151653, 151652, *[151655] * 8, 151653,
        3838, 374, 220, 17, 10, 17, 30, 5209, 4226, 9834, 476, 902, 13,
        151645, 198, 151644, 77091, 198,
    ]  # fmt: skip
    assert encoded.inputs["input_ids"].tolist() == [expected]
    types = [int(token == 151655) for token in expected]
    assert encoded.inputs["mm_token_type_ids"].tolist() == [types]


def test_qwen_digits_and_object_markers_are_single_tokens():
    tokenizer = qwen_tokenizer("qwen2vl")
    ids = tokenizer("<|box_start|>(12,345),(6,7)<|box_end|>")["input_ids"]
    assert [tokenizer.decode([i]) for i in ids] == [
        "<|box_start|>", "(", "1", "2", ",", "3", "4", "5", "),(", "6", ",", "7", ")",
        "<|box_end|>",
    ]  # fmt: skip
    ids = tokenizer(EXPECTED["qwen2vl"].questions[0])["input_ids"]
    assert ids.count(151646) == ids.count(151647) == 1


# --- batches


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixed_batch_equals_single_prompts_padded_left(name, tmp_path):
    tokenizer = qwen_tokenizer(name) if name in QWENS else None
    family, processor = setup(name, tmp_path, tokenizer)
    samples = [
        sample("grounding", (50, 30)),
        sample("yes_no", name="text"),
        sample("multiple_choice", (20, 70), (33, 33), (64, 8)),
    ]
    batch = family.encode(processor, samples)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert len(batch.prompts) == len(batch.box_frames) == len(ids) == 3
    assert [len(shown) for shown in batch.visible_areas] == [1, 0, 3]
    assert batch.box_frames[1] == BoxFrame(1, 1, 1, 1)
    for number, alone in enumerate(samples):
        single = family.encode(processor, [alone])
        row = single.inputs["input_ids"][0]
        padding = ids.shape[1] - len(row)
        assert torch.equal(ids[number, padding:], row)
        assert mask[number].tolist() == [0] * padding + [1] * len(row)
        assert (ids[number, :padding] == processor.tokenizer.pad_token_id).all()
        assert single.box_frames == [batch.box_frames[number]]
        if (bos := processor.tokenizer.bos_token_id) is not None:
            assert (row == bos).nonzero().tolist() == [[0]]
    parts = [family.encode(processor, [s]).inputs["pixel_values"] for s in samples[::2]]
    tiles = min(part.shape[1] for part in parts)  # LLaVA-NeXT fills fewer tiles up
    cut = [part[:, :tiles] for part in (batch.inputs["pixel_values"], *parts)]
    assert torch.equal(cut[0], torch.cat(cut[1:]))
    assert "pixel_values" not in family.encode(processor, samples[1:2]).inputs


@pytest.mark.parametrize("name", [name for name in EXPECTED if "bos_token" in EXPECTED[name].roles])
def test_a_tokenizer_that_leaves_bos_out_is_helped(name, tmp_path):
    """As DeepSeek's are stored: a BOS token, but no template that puts it in front."""
    family, processor = setup(name, tmp_path)
    whole = family.encode(processor, [sample("yes_no", (5, 5)), sample("yes_no")]).inputs
    core = processor.tokenizer.backend_tokenizer
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    assert processor.tokenizer("a")["input_ids"][0] != processor.tokenizer.bos_token_id
    same = family.encode(processor, [sample("yes_no", (5, 5)), sample("yes_no")]).inputs
    assert torch.equal(whole["input_ids"], same["input_ids"])
    assert torch.equal(whole["attention_mask"], same["attention_mask"])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_told_with_its_sample(name, size, tmp_path):
    family, processor = setup(name, tmp_path)
    bad = sample("yes_no", (5, 5), name="row 17")
    bad = Sample(**vars(bad) | {"images": (*bad.images, Image.new("RGB", size))})
    with pytest.raises(UserError, match=f"sample 'row 17' has one of {size[0]} x {size[1]}"):
        family.encode(processor, [sample("yes_no", (5, 5)), bad])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_placeholder_in_a_question_is_told_with_its_sample(name, tmp_path):
    family, processor = setup(name, tmp_path)
    asked = sample("yes_no", (5, 5), name="row 4", question=f"{family.image_token} Is it?")
    with pytest.raises(UserError, match=r"sample 'row 4'.*take it out"):
        family.encode(processor, [asked])


@pytest.mark.parametrize("name", QWENS)
def test_an_image_too_long_for_qwen_is_told(name, tmp_path):
    family, processor = setup(name, tmp_path)
    with pytest.raises(UserError, match="aspect ratio must be smaller than 200, got 201"):
        family.encode(processor, [sample("yes_no", (201, 1))])


# --- limits that fields set


@pytest.mark.parametrize("name", QWENS)
def test_pixel_limits_of_a_qwen(name, tmp_path):
    for fields, pixels in (
        ({}, (64, 3200)),
        ({"max_pixels": 999}, (64, 999)),
        ({"min_pixels": 128, "max_pixels": 256}, (128, 256)),
    ):
        family, processor = setup(name, tmp_path, **fields)
        size = processor.images.size
        assert (size["shortest_edge"], size["longest_edge"]) == pixels
        encoded = family.encode(processor, [sample("yes_no", (300, 300)), sample("yes_no", (2, 2))])
        areas = encoded.inputs["image_grid_thw"].prod(1) * 16
        assert areas.max() <= pixels[1]
        assert areas.min() >= pixels[0]


def test_tile_limits_of_internvl(tmp_path):
    wide = sample("yes_no", (600, 100))
    for fields, tiles in (({}, 7), ({"max_tiles": 1}, 1), ({"max_tiles": 4}, 5)):
        family, processor = setup("internvl", tmp_path, **fields)
        assert len(family.encode(processor, [wide]).inputs["pixel_values"]) == tiles
    family, processor = setup("internvl", tmp_path, min_tiles=2)
    square = sample("yes_no", (8, 8))
    assert len(family.encode(processor, [square]).inputs["pixel_values"]) > 2
    with pytest.raises(UserError, match="at least 1 and at most"):
        InternVL(min_tiles=3, max_tiles=2)


# --- answers


@pytest.mark.parametrize(
    ("name", "text", "box"),
    [(name, *answer) for name in EXPECTED for answer in EXPECTED[name].answers],
)
def test_boxes_are_read_from_good_odd_and_bad_answers(name, text, box):
    read = FAMILIES[name]().parse_box(text)
    assert read == (box and pytest.approx(box))


def test_qwen2_answers_keep_their_box_markers():
    tokenizer = qwen_tokenizer("qwen2vl")
    answer = "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,22),(333,999)<|box_end|>"
    texts = [answer + "<|im_end|>", "Yes<|im_end|>" + "<|endoftext|>" * 30]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [151643] * (longest - len(row)) for row in rows])
    family = Qwen2VL()
    decoded = family.decode(Processor(tokenizer, None), tokens)
    assert decoded == [answer, "Yes"]
    assert family.parse_box(decoded[0]) == (1, 22, 333, 999)


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_decoded_without_ends_and_padding(name):
    tokenizer = byte_tokenizer(name)
    answer = "<ref>cat</ref><box>[[1, 22, 333, 999]]</box>"
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    tokens = torch.tensor([[*tokenizer(answer, add_special_tokens=False).input_ids, end, pad, pad]])
    assert FAMILIES[name]().decode(Processor(tokenizer, None), tokens) == [answer]
