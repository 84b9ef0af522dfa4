"""The wording of questions for Idefics3 and SmolVLM, as VLMEvalKit words them.

Source: open-compass/VLMEvalKit, `vlmeval/vlm/smolvlm.py` and `vlmeval/vlm/idefics.py`.
"""

from __future__ import annotations

from ivcp.core.types import Sample
from ivcp.models import wording

BRIEF = "Give a very brief answer."
SHORT_ANSWERS = ("MME", "MMVet", "InfoVQA_VAL", "OCRBench")
"""Datasets whose questions end with `BRIEF`."""
LETTERS = ("MMStar", "SEEDBench_IMG", "AI2D_TEST", "ScienceQA_TEST", "MMMU_DEV_VAL")
"""Multiple-choice datasets whose answers begin behind the word "Answer:"."""
MMMU = "MMMU_DEV_VAL"
RULES = {
    "ChartQA_TEST": (
        "For the question below, follow the following instructions:\n"
        "-The answer should contain as few words as possible.\n"
        "-Don't paraphrase or reformat the text you see in the image.\n"
        "-Answer a binary question with Yes or No.\n"
        "-When asked to give a numerical value, provide a number like 2 instead of Two.\n"
        "-If the final answer has two or more items, provide it in the list format like [1, 2].\n"
        "-When asked to give a ratio, give out the decimal value like 0.25 instead of 1:4.\n"
        "-When asked to give a percentage, give out the whole value like 17 instead of decimal "
        "like 0.17%.\n"
        "-Don't include any units in the answer.\n"
        "-Do not include any full stops at the end of the answer.\n"
        "-Try to include the full label from the graph when asked about an entity.\n"
        "Question: "
    ),
    "DocVQA_VAL": (
        "Give a short and terse answer to the following question. Do not paraphrase or reformat "
        "the text you see in the image. Do not include any full stops. Just give the answer "
        "without additional explanation. Question: "
    ),
    "TextVQA_VAL": (
        "Answer the following question about the image using as few words as possible. Follow "
        "these additional instructions:\n"
        "-Always answer a binary question with Yes or No.\n"
        "-When asked what time it is, reply with the time seen in the image.\n"
        "-Do not put any full stops at the end of the answer.\n"
        "-Do not put quotation marks around the answer.\n"
        "-An answer with one or two words is favorable.\n"
        "-Do not apply common sense knowledge. The answer can be found in the image.\n"
        "Question: "
    ),
}
"""What precedes a question for SmolVLM; for Idefics3, `BRIEF` follows it."""


def question(sample: Sample, rules: bool) -> str:
    """A question; boxes as for LLaVA, since no format was published.

    Args:
        sample: The question.
        rules: Whether `RULES` precede it.
    """
    if sample.task == "grounding":
        return wording.REGION + sample.question
    if sample.task == "multiple_choice":
        return _choice(sample)
    text, name = wording.plain(sample).strip(), sample.benchmark
    if rules and name in RULES:
        return RULES[name] + text
    if name in SHORT_ANSWERS or name in RULES:
        return f"{text}\n{BRIEF}"
    return f"{text}\nAnswer yes or no." if name == "HallusionBench" else text


def answer_start(sample: Sample) -> str:
    """What stands before the answer, behind "Assistant:"."""
    lettered = sample.benchmark in LETTERS or sample.benchmark.startswith("MMBench")
    return " Answer:" if lettered and wording.options_of(sample) and not sample.verbatim else ""


def _choice(sample: Sample) -> str:
    text = wording.plain(sample).strip()
    if sample.benchmark.startswith("MMBench"):
        text = text.replace(wording.CHOOSE, "Answer with a letter.")
        if sample.hint:  # it stands behind the question
            hint, rest = text.split("\nQuestion:", 1)
            stem, options = rest.split("\nOptions:", 1)
            text = f"Question:{stem}\n{hint}\nOptions:{options}"
    elif sample.benchmark in LETTERS:
        text = text.replace(wording.CHOOSE, "Answer with the letter.")
    else:
        return text
    text = text.replace("\nOptions:", "\nChoices:")
    return text.replace("Question:", "").strip() if sample.benchmark == MMMU else text
