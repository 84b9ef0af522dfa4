"""`backend=vllm`: a run's prompts are answered by vLLM, in an engine of the run's own."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import Any

from ivcp.core.backend import Backend, ServedAnswer, ServedPrompt, Server
from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.fields import check_fields
from ivcp.core.pruner import Pruner
from ivcp.integrations.vllm.plugin import hf_overrides, register
from ivcp.integrations.vllm.sampling import sampling
from ivcp.integrations.vllm.settings import KEY, SAMPLE_ID, canonical, pruner_of, settings_of
from ivcp.integrations.vllm.worker import EXTENSION

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Model types whose images can be handed over as the model sees them."""
FIXED = {
    "model": "use model.path", "dtype": "use model.dtype", "seed": "use seed",
    "hf_overrides": "the run chooses the model that prunes",
    "worker_extension_cls": "the run has its own",
    "disable_log_stats": "times of answers would be missing",
    "kv_cache_dtype": "bytes of the cache are counted in model.dtype",
    "trust_remote_code": "code of a checkpoint is never run",
    "data_parallel_size": "use backend.data_parallel_size",
}  # fmt: skip
"""Arguments of `vllm.LLM` that `engine` cannot hold, and why."""
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # many warnings tell what a run wants
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",  # an answer made of them is no answer
}
"""Variables that are set where the user has not."""


@dataclass(frozen=True, kw_only=True)
class VLLMBackend(Backend):
    """An engine of vLLM, which batches and schedules by itself.

    Attributes:
        tensor_parallel_size: GPUs that share a model.
        data_parallel_size: Engines with a model each, which share the samples.
        enforce_eager: Whether nothing is compiled.
        max_model_len: Longest prompt and answer in tokens, after pruning; None is the model's.
        engine: More keyword arguments of `vllm.LLM`, such as `gpu_memory_utilization`.
    """

    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    enforce_eager: bool = False
    max_model_len: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check types.

        Raises:
            UserError: A field has another type, or `engine` an argument that the run decides.
        """
        check_fields(self, "backend.")
        for name in ("tensor_parallel_size", "data_parallel_size"):
            if getattr(self, name) < 1:
                raise UserError(f"backend.{name} must be at least 1; got {getattr(self, name)}.")
        if not isinstance(self.engine, Mapping):
            raise UserError(f"backend.engine must be settings by name; got {self.engine!r}.")
        for name in self.engine:
            if reason := FIXED.get(name):
                raise UserError(f"backend.engine.{name} cannot be set: {reason}.")

    @property
    def copies(self) -> int:
        return self.data_parallel_size

    def fitted(self, pruner: Pruner) -> Pruner:
        changes: dict[str, Any] = {}
        for item in dataclasses.fields(pruner):
            value = getattr(pruner, item.name)
            if isinstance(value, Pruner):
                changes[item.name] = self.fitted(value)
            elif item.name == "layer" and value == "auto" and not getattr(pruner, "two_pass", 0):
                changes["layer"] = 0
        return dataclasses.replace(pruner, **changes) if changes else pruner

    def check(self, family: ModelFamily, pruner: Pruner, generation: Mapping[str, Any]) -> None:
        model: Any = family
        if family.model_types[0] not in FAMILIES or not hasattr(family, "generation_settings"):
            raise UserError(
                f"backend=vllm answers with {', '.join(FAMILIES)}; got {family.model_types[0]}: "
                "use backend=transformers."
            )
        if model.device_map is not None:
            raise UserError(
                "model.device_map is of no use with backend=vllm: use backend.tensor_parallel_size."
            )
        words = canonical(settings_of(pruner))
        pruner_of(words, family.model_types[0], family.depth(), family.tower_depth())
        sampling(generation, model.generation_settings())
        if importlib.util.find_spec("vllm") is None:
            raise UserError('backend=vllm needs vLLM: pip install "ivcp[vllm]".')
        gpus, wanted = len(visible_gpus()), self.copies * self.tensor_parallel_size
        if self.copies > 1 and 0 < gpus < wanted:
            raise UserError(
                f"backend.data_parallel_size={self.copies} with tensor_parallel_size="
                f"{self.tensor_parallel_size} needs {wanted} GPUs; {gpus} are visible."
            )

    def start(
        self,
        family: ModelFamily,
        pruner: Pruner,
        generation: Mapping[str, Any],
        seed: int,
        number: int = 0,
    ) -> Server:
        if self.copies > 1 and (gpus := visible_gpus()):
            size = self.tensor_parallel_size
            share = gpus[number * size : (number + 1) * size]
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from vllm import LLM
        from vllm.exceptions import VLLMError

        register()  # as vLLM does where this package is installed
        model: Any = family
        stored = str(model.config.dtype).removeprefix("torch.")
        # Ctrl-C goes to all processes of a terminal. Those of the engine are started here, inherit
        # the mask, and so live until the batch at hand is answered
        resource_tracker.ensure_running()  # its start would end the mask
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            engine = LLM(
                model.source,
                hf_overrides=hf_overrides(model.config),
                dtype=stored if model.dtype == "auto" else model.dtype,
                tensor_parallel_size=self.tensor_parallel_size,
                enforce_eager=self.enforce_eager,
                max_model_len=self.max_model_len,
                worker_extension_cls=EXTENSION,
                **{"disable_log_stats": False, "use_tqdm_on_load": False, **self.engine},
            )
        except (ValueError, TypeError, RuntimeError, VLLMError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"vLLM does not start ({reason}): see backend.max_model_len and backend.engine."
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        engine.collective_rpc("ivcp_tell_selections")
        chosen = sampling(generation, model.generation_settings())
        return VLLMServer(engine, settings_of(pruner) if pruner.prunes() else {}, chosen, seed)


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [str(number) for number in range(torch.cuda.device_count())]
    return named.split(",")[: len(numbers)] if named else numbers


class VLLMServer(Server):
    """A running engine.

    Args:
        engine: A `vllm.LLM`.
        settings: The method of all requests.
        chosen: Arguments of `vllm.SamplingParams`.
        seed: Of what is sampled, with a sample's id.
    """

    def __init__(
        self, engine: Any, settings: dict[str, Any], chosen: dict[str, Any], seed: int
    ) -> None:
        self.engine, self.settings, self.chosen, self.seed = engine, settings, chosen, seed

    def answer(self, prompts: Sequence[ServedPrompt]) -> list[ServedAnswer]:
        outputs = self._outputs(prompts)
        samples = Counter(prompt.sample_id for prompt in prompts)
        kept = {
            (sample_id, number): words
            for sample_id, number, words in self.engine.collective_rpc("ivcp_selections")[0]
            if samples[sample_id] == 1  # of two, nobody knows whose they are
        }
        return [
            _answer(output, _kept(prompt, kept))
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def _outputs(self, prompts: Sequence[ServedPrompt]) -> list[Any]:
        """Outputs of the engine; for a prompt that it refuses, such as one too long, the reason."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError

        requests = [self._request(prompt) for prompt in prompts]
        params = [
            SamplingParams(**self.chosen, seed=self._seed(prompt.sample_id)) for prompt in prompts
        ]
        try:
            return list(self.engine.generate(requests, params, use_tqdm=False))
        except (ValueError, VLLMClientError) as error:  # of one of them, but vLLM drops all
            if len(prompts) == 1:
                return [" ".join(str(error).split())]
        half = len(prompts) // 2
        return [*self._outputs(prompts[:half]), *self._outputs(prompts[half:])]

    def _seed(self, sample_id: str) -> int:
        """Of what is sampled for a prompt, whatever it is answered together with."""
        return zlib.crc32(f"{self.seed}/{sample_id}".encode(errors="surrogatepass"))

    def _request(self, prompt: ServedPrompt) -> dict[str, Any]:
        request: dict[str, Any] = {"prompt_token_ids": list(prompt.ids)}
        if prompt.images:
            settings = {**self.settings, SAMPLE_ID: prompt.sample_id} if self.settings else {}
            areas = [image.width * image.height for image in prompt.images]
            # the images have their final size, which no limit may change
            size = {"shortest_edge": min(areas), "longest_edge": max(areas)}
            request["multi_modal_data"] = {"image": list(prompt.images)}
            request["mm_processor_kwargs"] = {KEY: settings, "size": size}
        return request

    def about(self) -> dict[str, Any]:
        from vllm.platforms import current_platform

        config = self.engine.llm_engine.vllm_config
        cpu = current_platform.is_cpu()
        return {
            "device": "cpu" if cpu else current_platform.get_device_name(),
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "attention": "vllm",
        }

    def stop(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        self.engine.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()


def _kept(
    prompt: ServedPrompt, kept: Mapping[tuple[str, int], Mapping[int, str]]
) -> list[Mapping[int, str]] | None:
    """Kept tokens of each image; None if the model did not choose, as for a repeated prompt."""
    found: list[Mapping[int, str]] = []
    for number, image in enumerate(prompt.images):
        words = kept.get((prompt.sample_id, number))
        if words is None:  # vLLM encodes an image once that stands in a prompt twice
            same = [n for n, other in enumerate(prompt.images[:number]) if other == image]
            words = found[same[0]] if same else None
        if words is None:
            return None
        found.append(words)
    return found


def _answer(output: Any, kept: list[Mapping[int, str]] | None) -> ServedAnswer:
    """The answer in an output of vLLM."""
    if isinstance(output, str):
        return ServedAnswer(failed=output)
    times = output.metrics
    return ServedAnswer(
        tokens=list(output.outputs[0].token_ids),
        kept=kept,
        first_token_seconds=times.first_token_ts - times.scheduled_ts,
        decoding_seconds=times.last_token_ts - times.first_token_ts,
        finite=not times.is_corrupted,
    )
