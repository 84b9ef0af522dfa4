"""The packaged model in vLLM, and what transformers answers with the same tokens pruned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

import ivcp
from ivcp.core.types import Sample, Task
from ivcp.datasets.shapes import Shapes
from ivcp.integrations.vllm.plugin import hf_overrides, register
from ivcp.integrations.vllm.settings import SAMPLE_ID, canonical, pruner_of
from ivcp.models import find_family

os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_NO_USAGE_STATS="1",
    VLLM_LOGGING_LEVEL="ERROR",
    HF_HUB_OFFLINE="1",
)

TINY = Path(ivcp.__file__).parent / "models" / "tiny"
TOKENS = 24
TASKS: tuple[Task, ...] = ("grounding", "yes_no", "multiple_choice")
ENGINE: dict[str, Any] = {
    "dtype": "float32", "enforce_eager": True, "max_model_len": 512, "max_num_seqs": 8,
    "max_num_batched_tokens": 512, "limit_mm_per_prompt": {"image": 2, "video": 0},
    "skip_mm_profiling": True, "seed": 0,
}  # fmt: skip


@contextmanager
def started(
    path: Path = TINY, settings: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[Any]:
    """An engine in this process, which ends with the block: the next one needs its place."""
    from transformers import AutoConfig
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    register()  # as vLLM does where this package is installed
    overrides = hf_overrides(AutoConfig.from_pretrained(path), settings)
    engine = LLM(str(path), hf_overrides=overrides, **{**ENGINE, **options})
    try:
        yield engine
    finally:
        engine.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()


def scenes(count: int = 8) -> list[Sample]:
    """So many scenes of each kind of question; none of them has to be resized."""
    return [Shapes(task=task, size=count)[index] for task in TASKS for index in range(count)]


class Reference:
    """A model of transformers.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path = TINY) -> None:
        self.model, self.processor = ivcp.load(path)
        self.family = find_family(self.model)
        self.depth = int(self.model.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr, operator]

    def prompt(self, sample: Sample) -> str:
        return str(self.family.prompt(self.processor.tokenizer, sample))  # type: ignore[attr-defined]

    def answers(
        self, samples: Sequence[Sample], settings: Mapping[str, Any]
    ) -> list[tuple[list[int], list[int]]]:
        """Answer and kept visual tokens of each sample, by prompt index."""
        pruner = pruner_of(canonical(settings), self.model.config.model_type, self.depth)  # type: ignore[union-attr, arg-type]
        pruner = pruner or ivcp.NoPruning()
        answers: list[tuple[list[int], list[int]]] = []
        for first in range(0, len(samples), 8):
            batch = samples[first : first + 8]
            encoded = self.family.encode(self.processor, batch)
            with torch.inference_mode(), ivcp.pruned(self.model, pruner) as session:
                session.sample_ids = [str(settings.get(SAMPLE_ID, ""))] * len(batch)
                output = self.model.generate(  # type: ignore[operator]
                    **encoded.inputs, max_new_tokens=TOKENS, do_sample=False
                )
            width = encoded.inputs["input_ids"].shape[1]
            for row, kept in zip(output[:, width:].tolist(), session.kept, strict=True):
                answers.append((self.until_end(row), kept.tolist()))
        return answers

    def answer_to(self, prompt: str, sample: Sample, settings: Mapping[str, Any]) -> list[int]:
        """Answer to a prompt in words of its own."""
        worded = {"prompt": staticmethod(lambda tokenizer, sample: prompt)}
        plain = self.family
        self.family = type("Worded", (type(plain),), worded)()
        try:
            ((answer, _),) = self.answers([sample], settings)
        finally:
            self.family = plain
        return answer

    def until_end(self, tokens: Sequence[int]) -> list[int]:
        """An answer up to the token that ends it."""
        ends = self.model.generation_config.eos_token_id  # type: ignore[union-attr]
        ends = {ends} if isinstance(ends, int) else {*ends}  # type: ignore[misc]
        length = next((n for n, token in enumerate(tokens) if token in ends), len(tokens))
        return list(tokens[:length])


@cache
def reference() -> Reference:
    """The packaged model."""
    return Reference()


def request(
    sample: Sample, settings: Mapping[str, Any] | None, of: Reference | None = None, **more: Any
) -> dict[str, Any]:
    """A prompt of `LLM.generate`; None for settings leaves those of the engine."""
    images = list(sample.images)
    prompt: dict[str, Any] = {
        "prompt": (of or reference()).prompt(sample),
        "multi_modal_data": {"image": images if len(images) > 1 else images[0]},
        **more,
    }
    if settings is not None:
        prompt["mm_processor_kwargs"] = {"ivcp": dict(settings)}
    return prompt


def answers(engine: Any, prompts: Sequence[Any], of: Reference | None = None) -> list[list[int]]:
    """The engine's greedy answers."""
    from vllm import SamplingParams

    outputs = engine.generate(
        prompts, SamplingParams(temperature=0, max_tokens=TOKENS), use_tqdm=False
    )
    return [(of or reference()).until_end(output.outputs[0].token_ids) for output in outputs]


METHODS: list[dict[str, Any]] = [
    {},
    *(
        {"pruner": name, "keep_ratio": ratio}
        for name in ("uniform", "random", "ivc", "divprune", "pool", "farthest")
        for ratio in (0.5, 0.25)
    ),
    *(
        {"pruner": "ivcp", "two_pass": True, "layer": layer, "keep_ratio": ratio}
        for layer in (2, 4)
        for ratio in (0.5, 0.25)
    ),
]
"""Settings of the methods that are served, at two ratios."""
TOWER_METHODS: list[dict[str, Any]] = [
    {"pruner": name, "keep_ratio": ratio}
    for name in ("vispruner", "visionzip", "hiprune", "holov", "prumerge", "cdpruner")
    for ratio in (0.5, 0.25)
]
"""Settings of those that read the vision tower, or the text's embeddings."""


def named(settings: Mapping[str, Any]) -> str:
    """Name of a test case."""
    return "-".join(map(str, settings.values())) or "none"
