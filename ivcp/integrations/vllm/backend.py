"""`backend=vllm`: a run's prompts are answered by vLLM, in an engine of the run's own."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ivcp.core.backend import Backend, ServedPrompt
from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.fields import check_fields
from ivcp.core.pruner import Pruner
from ivcp.integrations.vllm.plugin import hf_overrides, register
from ivcp.integrations.vllm.settings import KEY, SAMPLE_ID, canonical, pruner_of, settings_of

SAMPLING = {
    "max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "temperature": "temperature",
    "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}  # fmt: skip
"""Arguments of `generate`, and vLLM's names for them."""
OF_CHECKPOINT = ("repetition_penalty",)
"""What a checkpoint's own generation settings decide in both, where a run names nothing."""
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Model types whose images can be handed over as the model sees them."""


@dataclass(frozen=True, kw_only=True)
class VLLMBackend(Backend):
    """An engine of vLLM, which batches and schedules by itself.

    Attributes:
        tensor_parallel_size: GPUs that share the model.
        enforce_eager: Whether nothing is compiled.
        max_model_len: Longest prompt and answer in tokens, after pruning; None is the model's.
        engine: More keyword arguments of `vllm.LLM`, such as `gpu_memory_utilization`.
    """

    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    max_model_len: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    running: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check types.

        Raises:
            UserError: A field has another type.
        """
        check_fields(self, "backend.")

    def fitted(self, pruner: Pruner) -> Pruner:
        changes: dict[str, Any] = {}
        for item in dataclasses.fields(pruner):
            value = getattr(pruner, item.name)
            if isinstance(value, Pruner):
                changes[item.name] = self.fitted(value)
            elif item.name == "layer" and value == "auto" and not getattr(pruner, "two_pass", 0):
                changes["layer"] = 0
        return dataclasses.replace(pruner, **changes) if changes else pruner

    def check(self, family: ModelFamily, pruner: Pruner) -> None:
        if family.model_types[0] not in FAMILIES:
            raise UserError(
                f"backend=vllm answers with {', '.join(FAMILIES)}; got {family.model_types[0]}: "
                "use backend=transformers."
            )
        words = canonical(settings_of(pruner))
        pruner_of(words, family.model_types[0], family.depth(), family.tower_depth())
        if importlib.util.find_spec("vllm") is None:
            raise UserError('backend=vllm needs vLLM: pip install "ivcp[vllm]".')

    def check_generation(self, generation: Mapping[str, Any]) -> None:
        known = {*SAMPLING, "do_sample"}
        unknown = [n for n, v in generation.items() if n not in known and v is not None]
        if unknown:
            raise UserError(
                f"backend=vllm takes the generation settings {', '.join(sorted(known))}; got "
                f"{', '.join(unknown)}: leave them out, or use backend=transformers."
            )

    def start(self, family: ModelFamily, pruner: Pruner) -> None:
        from vllm import LLM

        register()  # as vLLM does where this package is installed
        source: Any = family
        self.running["settings"] = settings_of(pruner)
        self.running["engine"] = LLM(
            source.source,
            hf_overrides=hf_overrides(source.config),
            dtype=source.dtype,
            tensor_parallel_size=self.tensor_parallel_size,
            enforce_eager=self.enforce_eager,
            max_model_len=self.max_model_len,
            **self.engine,
        )

    def answer(
        self, prompts: Sequence[ServedPrompt], generation: Mapping[str, Any], seed: int
    ) -> list[list[int]]:
        from vllm import SamplingParams

        engine = self.running["engine"]
        defaults = engine.llm_engine.model_config.get_diff_sampling_param()
        chosen = {name: defaults[name] for name in OF_CHECKPOINT if name in defaults}
        sampled = bool(generation.get("do_sample"))
        if not sampled:
            chosen["temperature"] = 0
        else:
            chosen |= {**defaults, "seed": seed}
        for name, value in generation.items():
            if name in SAMPLING and value is not None:
                chosen[SAMPLING[name]] = value
        requests = [self._request(prompt) for prompt in prompts]
        outputs = engine.generate(requests, SamplingParams(**chosen), use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def _request(self, prompt: ServedPrompt) -> dict[str, Any]:
        request: dict[str, Any] = {"prompt_token_ids": list(prompt.ids)}
        if prompt.images:
            settings = {**self.running["settings"], SAMPLE_ID: prompt.sample_id}
            areas = [image.width * image.height for image in prompt.images]
            # the images have their final size, which no limit may change
            limits = {"min_pixels": min(areas), "max_pixels": max(areas)}
            request["multi_modal_data"] = {"image": list(prompt.images)}
            request["mm_processor_kwargs"] = {KEY: settings, **limits}
        return request

    def stop(self) -> None:
        if (engine := self.running.pop("engine", None)) is not None:
            from vllm.distributed import cleanup_dist_env_and_memory

            engine.llm_engine.engine_core.shutdown()
            cleanup_dist_env_and_memory()

    def about(self) -> dict[str, Any]:
        from vllm.platforms import current_platform

        config = self.running["engine"].llm_engine.vllm_config
        cpu = current_platform.is_cpu()
        return {
            "device": "cpu" if cpu else current_platform.get_device_name(),
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "attention": "vllm",
        }
