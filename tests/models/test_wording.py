"""The wording of each benchmark for each family, as VLMEvalKit's sources state it, written out."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from expected import EXPECTED
from PIL import Image
from processing import FAMILIES
from vocabulary import byte_tokenizer

from ivcp.core.types import Sample, Task
from ivcp.core.video import Video
from ivcp.models.internvl import InternVL

QWEN = ("qwen",)  # functions of `ivcp/models/wording.py`
DIRECT = ("llava", "internvl")
DEEPSEEK = ("deepseek", "deepseek2")
KINDS = (*QWEN, *DIRECT, *DEEPSEEK)
WORDED = {name: known.wording for name, known in EXPECTED.items() if known.wording}
SHORT = "Answer the question using a single word or phrase."
WISH = "Please try to answer the question with short words or phrases if possible."
LETTER = "Answer with the option's letter from the given choices directly."
CHOOSE = "Please select the correct answer from the options above."
CHINESE = "\u8bf7\u76f4\u63a5\u56de\u7b54\u9009\u9879\u5b57\u6bcd\u3002"
CHINESE_OPEN = "\u8bf7\u76f4\u63a5\u56de\u7b54\u95ee\u9898\u3002"


def sample(task: Task, question: str, **fields: Any) -> Sample:
    answer = "A" if task == "multiple_choice" else "Yes"
    return Sample(id="s", task=task, images=(), question=question, answer=answer, **fields)


YES_NO = [  # benchmark, kinds of wording, what follows the question
    ("POPE", QWEN, " Please answer yes or no."),
    ("POPE", (*DIRECT, *DEEPSEEK), ""),
    ("HallusionBench", QWEN, " Please answer yes or no."),
    ("HallusionBench", ("internvl",), f" Please answer yes or no. {SHORT}"),
    ("HallusionBench", ("llava", *DEEPSEEK), ""),
    ("MME", (*QWEN, "llava", *DEEPSEEK), ""),
    ("MME", ("internvl",), f" {SHORT}"),
]
OPEN = [
    *((name, QWEN, f"\n{WISH}") for name in ("TextVQA_VAL", "ChartQA_TEST", "DocVQA_VAL")),
    *((name, QWEN, f"\n{WISH}") for name in ("InfoVQA_VAL", "OCRBench", "GQA_TestDev_Balanced")),
    *(
        (name, (*DIRECT, *DEEPSEEK), f"\n{SHORT}")
        for name in ("TextVQA_VAL", "ChartQA_TEST", "DocVQA_VAL", "InfoVQA_VAL")
    ),
    ("GQA_TestDev_Balanced", (*DIRECT, *DEEPSEEK), f"\n{SHORT}"),
    ("OCRBench", ("internvl",), f"\n{SHORT}"),
    ("OCRBench", ("llava", *DEEPSEEK), ""),
    ("MMVet", KINDS, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "benchmark", "family", "behind"),
    [
        (task, benchmark, family, behind)
        for task, table in (("yes_no", YES_NO), ("open_ended", OPEN))
        for benchmark, kinds, behind in table
        for family, kind in WORDED.items()
        if kind in kinds
    ],
)
def test_what_follows_a_question(task, benchmark, family, behind):
    asked = sample(task, "What is it?", benchmark=benchmark)
    assert FAMILIES[family]().format_question(asked) == "What is it?" + behind


def test_every_set_with_words_of_its_own_is_in_the_tables():
    for table, sets in ((YES_NO, 3), (OPEN, 7)):
        pairs = {(name, kind) for name, kinds, _ in table for kind in kinds}
        assert len(pairs) == sets * len(KINDS)
    assert set(WORDED.values()) == set(KINDS)


@pytest.mark.parametrize("family", WORDED)
@pytest.mark.parametrize("question", ["Which?", "\u54ea\u4e2a?"])
@pytest.mark.parametrize("hint", ["", "Look."])
def test_multiple_choice(family, question, hint):
    asked = sample("multiple_choice", question, hint=hint, options=("None", "a dog"))
    in_chinese = question != "Which?"
    announced = f"Hint: {hint}\n" if hint else ""
    announced += f"Question: {question}\nOptions:\nA. None\nB. a dog\n"
    bare = (f"{hint}\n" if hint else "") + f"{question}\nA. None\nB. a dog\n"
    expected = {
        **dict.fromkeys(QWEN, announced + (CHINESE if in_chinese else CHOOSE)),
        **dict.fromkeys(DIRECT, bare + (CHINESE if in_chinese else LETTER)),
        **dict.fromkeys(DEEPSEEK, f"{announced}{CHOOSE} \n"),
    }
    assert FAMILIES[family]().format_question(asked) == expected[WORDED[family]]


@pytest.mark.parametrize("family", WORDED)
def test_an_open_question_among_multiple_choice_ones_shows_no_options(family):
    open_one = {"options": ("7", "Other Answers"), "labels": {"open": "yes"}}
    texts = [
        FAMILIES[family]().format_question(sample("multiple_choice", question, **open_one))
        for question in ("How many?", "\u591a\u5c11?")
    ]
    if WORDED[family] in DIRECT:
        assert texts[0] == "How many?\nAnswer the question directly."
        assert texts[1] == f"\u591a\u5c11?\n{CHINESE_OPEN}"
    else:
        end = "" if WORDED[family] in QWEN else "\n"
        assert texts == [f"Question: How many?{end}", f"Question: \u591a\u5c11?{end}"]


def test_a_sets_own_wording_is_for_families_without_words():
    asked = sample(
        "multiple_choice", "How many?", options=("1", "2"), prompt="How many? (A) 1 (B) 2"
    )
    texts = {kind: FAMILIES[name]().format_question(asked) for name, kind in WORDED.items()}
    own = {kind for kind, text in texts.items() if text == "How many? (A) 1 (B) 2"}
    assert own == set(DEEPSEEK)


CLIPS = [  # benchmark, the dataset's words, what InternVL makes of them
    (
        "Video-MME", "\nThese are the frames.\nQuestion: Which?\nA. 1\nB. 2\nAnswer: ",
        f"\nThese are the frames.\nQuestion: Which?\nA. 1\nB. 2 \n{LETTER}",
    ),
    ("MVBench", "Which?\nOnly give the best option.Best option:(",
     "Which?\nOnly give the best option."),
    ("MLVU_MCQ", "Which?\nOnly give the best option.", "Which?\nOnly give the best option."),
    ("TempCompass_YorN", "Is it?\nPlease answer yes or no:", "Is it?\nPlease answer yes or no:"),
]  # fmt: skip


@pytest.mark.parametrize("family", WORDED)
@pytest.mark.parametrize(("benchmark", "prompt", "internvl"), CLIPS)
def test_questions_about_clips_keep_the_words_of_their_dataset(family, benchmark, prompt, internvl):
    task = "yes_no" if benchmark == "TempCompass_YorN" else "multiple_choice"
    asked = sample(
        task, "Which?", options=("1", "2"), benchmark=benchmark, prompt=prompt, videos=(Video(),)
    )
    expected = internvl if WORDED[family] == "internvl" else prompt
    assert FAMILIES[family]().format_question(asked) == expected
    scene = sample(task, "Which?", options=("1", "2"))  # of a set without words of its own
    assert FAMILIES[family]().format_question(replace(scene, videos=(Video(),))) == FAMILIES[
        family
    ]().format_question(scene)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_time_of_an_event_is_asked_for_in_the_words_of_lmms_eval(family):
    asked = sample("temporal_grounding", "person turn a light on", videos=(Video(),))
    assert FAMILIES[family]().format_question(asked) == (
        "Please find the visual event described by a sentence in the video, determining its "
        "starting and ending times. The format should be: 'The event happens in the start time - "
        "end time'. For example, The event 'person turn a light on' happens in the 24.3 - 30.4 "
        "seonds. Now I will give you the textual sentence: person turn a light on. Please return "
        "its start time and end time."
    )


def test_mmmu_in_deepseeks_words():
    asked = sample(
        "multiple_choice", "See <image 1>.", options=("1", "2"), benchmark="MMMU_DEV_VAL"
    )
    text = FAMILIES["deepseekvl2"]().format_question(asked)
    assert text == f" See <image 1>.\nA. 1\nB. 2\n{LETTER} {SHORT}\n \n"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_verbatim_question_stands_as_it_is(family):
    asked = sample("open_ended", "Say: cheese", verbatim=True)
    prompt = FAMILIES[family]().prompt(byte_tokenizer(family), asked)
    assert prompt == EXPECTED[family].prompt("Say: cheese", 0)


def test_internvl_cuts_small_text_into_more_tiles():
    image = Image.new("RGB", (8, 8))
    limits = {}
    for name in ("POPE", "ChartQA_TEST", "MMMU_DEV_VAL", "DocVQA_VAL", "InfoVQA_VAL", "OCRBench"):
        one = Sample(
            id="s", task="open_ended", images=(image,), question="?", answer="", benchmark=name
        )
        limits[name] = InternVL()._limit(one)
        assert InternVL(more_tiles=False)._limit(one) == 6
    assert list(limits.values()) == [6, 12, 12, 18, 24, 24]
    many = Sample(
        id="s", task="open_ended", images=(image,) * 20, question="?", answer="", benchmark="BLINK"
    )
    assert InternVL()._limit(many) == 3


# --- real rows


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("family", WORDED)
def test_real_mmbench_rows(realdata, family):
    rows = cells(realdata / "mmbench_samples" / "mmbench_samples.tsv")
    assert len(rows) == 20
    for row in rows:
        options = {letter: row[letter] for letter in "ABCD" if row[letter]}
        lines = "".join(f"{letter}. {text}\n" for letter, text in options.items())
        hint = row["hint"]
        if WORDED[family] in DIRECT:
            expected = (hint + "\n" if hint else "") + row["question"] + "\n" + lines + LETTER
        else:
            expected = f"Hint: {hint}\n" if hint else ""
            expected += f"Question: {row['question']}\nOptions:\n{lines}{CHOOSE}"
            expected += "" if WORDED[family] in QWEN else " \n"
        asked = sample(
            "multiple_choice", row["question"], hint=hint, options=tuple(options.values()),
            benchmark="MMBench_DEV_EN_V11",
        )  # fmt: skip
        assert FAMILIES[family]().format_question(asked) == expected


@pytest.mark.parametrize("family", WORDED)
def test_real_pope_rows(realdata, family):
    rows = cells(realdata / "pope_mini" / "POPE_mini_meta.tsv")
    assert len(rows) == 62
    for row in rows:
        asked = sample("yes_no", row["question"], benchmark="POPE")
        behind = " Please answer yes or no." if WORDED[family] in QWEN else ""
        assert FAMILIES[family]().format_question(asked) == row["question"] + behind
