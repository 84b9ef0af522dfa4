"""The wording of questions, as VLMEvalKit words them for each type of model.

Source: open-compass/VLMEvalKit, `build_prompt` of its datasets and models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from ivcp.core.types import Sample

CHINESE = re.compile("[\u4e00-\u9fff]")
CHOOSE = "Please select the correct answer from the options above."
CHOOSE_CHINESE = "请直接回答选项字母。"
LETTER = "Answer with the option's letter from the given choices directly."
ANSWER = "Answer the question directly."
ANSWER_CHINESE = "请直接回答问题。"
SHORT = "Answer the question using a single word or phrase."
YES_OR_NO = "Please answer yes or no."
REGION = "Please provide the bounding box coordinate of the region this sentence describes: "

EVENT = (
    "Please find the visual event described by a sentence in the video, determining its starting "
    "and ending times. The format should be: 'The event happens in the start time - end time'. For "
    "example, The event 'person turn a light on' happens in the 24.3 - 30.4 seonds. Now I will "
    "give you the textual sentence: {}. Please return its start time and end time."
)
"""Of lmms-eval, with its misspelling, since VLMEvalKit has no temporal grounding."""

FREE = ("MMVet",)
"""Datasets whose open questions every model may answer at any length."""


def lettered(options: Sequence[str]) -> str:
    """Options as lines `A. ...`, `B. ...`; an empty text is no option."""
    return "\n".join(f"{ascii_uppercase[n]}. {text}" for n, text in enumerate(options) if text)


def options_of(sample: Sample) -> tuple[str, ...]:
    """The options in the prompt; an open question of a multiple-choice dataset has none."""
    return () if "open" in sample.labels else sample.options


def of_clip(sample: Sample) -> str:
    """A question about a video in the dataset's wording, which models keep; empty for others."""
    if sample.task == "temporal_grounding":
        return sample.prompt or EVENT.format(sample.question)
    return sample.prompt if sample.videos else ""


def plain(sample: Sample) -> str:
    """The dataset's own wording, for models without one for the task."""
    if text := of_clip(sample) or sample.prompt:
        return text
    if sample.task == "multiple_choice":
        return choice(sample)
    if sample.task == "open_ended" and sample.benchmark not in (*FREE, "OCRBench"):
        return f"{sample.question}\n{SHORT}"
    return sample.question


def choice(sample: Sample, chinese: bool = False) -> str:
    """A multiple-choice question with a heading before each part; it ends with a line break.

    Args:
        sample: The question.
        chinese: Whether a question with Chinese characters gets the instruction in Chinese.
    """
    hint = f"Hint: {sample.hint}\n" if sample.hint else ""
    text = f"{hint}Question: {sample.question}\n"
    if not (options := options_of(sample)):
        return text
    text += f"Options:\n{lettered(options)}\n"
    return f"{text}{CHOOSE_CHINESE if chinese and CHINESE.search(text) else CHOOSE} \n"


def direct_choice(sample: Sample) -> str:
    """A multiple-choice question as LLaVA and InternVL were trained on."""
    options = options_of(sample)
    text = "\n".join(filter(None, [sample.hint, sample.question, lettered(options)]))
    in_chinese = CHINESE.search(text)
    if options:
        return f"{text}\n{CHOOSE_CHINESE if in_chinese else LETTER}"
    return f"{text}\n{ANSWER_CHINESE if in_chinese else ANSWER}"


def llava(sample: Sample) -> str:
    """For LLaVA-1.5 and LLaVA-NeXT; boxes as in LLaVA's training prompts."""
    if text := of_clip(sample):
        return text
    if sample.task == "grounding":
        return REGION + sample.question
    return direct_choice(sample) if sample.task == "multiple_choice" else plain(sample)


def internvl(sample: Sample) -> str:
    """For InternVL; boxes as in InternVL's own evaluation, other endings for two video sets."""
    if text := of_clip(sample):
        if sample.benchmark == "Video-MME":
            return text.replace("\nAnswer:", "") + f"\n{LETTER}"
        return text.replace("Best option:(", "") if sample.benchmark == "MVBench" else text
    if sample.task == "grounding":
        return f"{REGION}<ref>{sample.question}</ref>"
    if sample.task == "multiple_choice":
        return direct_choice(sample)
    if sample.task == "open_ended":
        free = sample.benchmark in FREE
        return sample.question if free else f"{sample.question}\n{SHORT}"
    if sample.benchmark == "MME":
        return f"{sample.question} {SHORT}"
    if sample.benchmark == "HallusionBench":
        return f"{sample.question} {YES_OR_NO} {SHORT}"
    return sample.question


def qwen(sample: Sample) -> str:
    """For Qwen-VL; boxes as in the IVC-Prune release.

    Qwen3-VL's maintainers name the same wording for its boxes in thousandths.
    """
    if text := of_clip(sample):
        return text
    if sample.task == "grounding":
        return f"\nLocate {sample.question} and output the bbox coordinates in JSON format."
    if sample.task == "multiple_choice":
        return choice(sample, chinese=True).rstrip()
    if sample.task == "open_ended":
        free = sample.benchmark in FREE
        wish = "\nPlease try to answer the question with short words or phrases if possible."
        return sample.question if free else sample.question + wish
    if sample.benchmark == "MME":  # its questions end with these words already
        return sample.question
    return f"{sample.question} {YES_OR_NO}"


def glm(sample: Sample) -> str:
    """For GLM-4.1V; boxes as in the model card of GLM-4.5V, "Grounding"."""
    if sample.task == "grounding":
        return f"Help me to locate {sample.question} in the image and give me its bounding boxes."
    return plain(sample)


def deepseek(sample: Sample) -> str:
    """For DeepSeek-VL; boxes as for LLaVA, since no format was published."""
    return REGION + sample.question if sample.task == "grounding" else plain(sample)


def deepseek2(sample: Sample) -> str:
    """For DeepSeek-VL2; boxes as in the IVC-Prune release."""
    if sample.task == "grounding":
        return f"Locate <|ref|>{sample.question}<|/ref|> in the given image."
    text = plain(sample)
    if sample.benchmark == "MMMU_DEV_VAL":
        text = text.replace(CHOOSE, f"{LETTER} {SHORT}\n")
        text = text.replace("Question:", "").replace("Options:\n", "")
    return text
