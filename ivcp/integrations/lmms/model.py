"""A pruned model for lmms-eval: `lmms-eval --model ivcp --model_args ...`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string
from loguru import logger
from rich.progress import track

from ivcp.core.errors import UserError
from ivcp.core.pairing import fit_pair
from ivcp.core.resizing import encode_for
from ivcp.core.types import Sample
from ivcp.engine.attach import open_session
from ivcp.engine.session import Session
from ivcp.integrations.lmms.arguments import Arguments
from ivcp.integrations.lmms.generation import Generation
from ivcp.integrations.lmms.visuals import UnsupportedTaskError, check_visuals, read_visual

MARKER = "<image>"
"""Where tasks refer to an image. Images come before the text here, so it is removed, as lmms-eval's
own models do."""


class PrunedModel(lmms):  # type: ignore[misc]  # has no types
    """Answers the requests of a task with a model whose visual tokens are pruned.

    Attributes:
        model: The Hugging Face model, in evaluation mode.
        device: Where inputs go; where the processes of a run exchange numbers.

    Args:
        device: Such as "cuda:0", for a single process; None takes what `accelerate` chooses.
        model_args: Model arguments by name (`Arguments.parse`).

    Raises:
        UserError: An argument is wrong, the model cannot serve the pruner, or it cannot be loaded.
    """

    is_simple = True

    def __init__(self, *, device: str | None = None, **model_args: Any) -> None:
        super().__init__()
        self.arguments = Arguments.parse(model_args)
        self.family, self.requests = self.arguments.model, self.arguments.requests
        family, pruner = self.family, self.arguments.pruner
        self.pruner = fit_pair(pruner, family, type(family).__name__)
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        spread = getattr(family, "device_map", None) is not None
        if spread and self._world_size > 1:
            raise UserError(
                "A model that device_map spreads needs all devices for itself: start one process "
                f"instead of {self._world_size}, or leave device_map out."
            )
        self.model, self.processor = family.load()
        if spread:
            self.device = next(self.model.parameters()).device
        else:
            alone = self._world_size == 1
            self.device = torch.device(device) if device and alone else self.accelerator.device
            self.model.to(self.device)
        self.ignored: set[str] = set()
        self.failed: list[str] = []
        logger.info(f"Answering with model_args {self.arguments}")

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> PrunedModel:
        """The model of a command line; `--model_args` wins over `--batch_size` and `--device`.

        Args:
            arg_string: `name=value,...`
            additional_config: What other options of the command say.
        """
        try:
            model_args = simple_parse_args_string(arg_string)
        except ValueError as error:
            raise UserError(
                f"--model_args must read name=value,name=value; got {arg_string!r}."
            ) from error
        options = additional_config or {}
        named = {name: value for name, value in options.items() if value is not None}
        return cls(**{**named, **model_args})

    def __repr__(self) -> str:
        """All arguments: the response cache distinguishes models that are objects by it."""
        return f"{type(self).__name__}({self.arguments})"

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answer to each request, in their order.

        A request of which no prompt can be made, such as one with a damaged image, gets an empty
        answer, which counts as wrong; failures are counted in the log.

        Raises:
            UserError: A request has something other than images, or all requests failed.
        """
        self.failed.clear()
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            kind = json.dumps(request.args[1], sort_keys=True, default=str)
            groups.setdefault(kind, []).append(number)
        size = self.requests.batch_size
        batches = [
            group[start : start + size]
            for group in groups.values()
            for start in range(0, len(group), size)
        ]
        answers = [""] * len(requests)
        with open_session(self.model, self.family, self.pruner) as session:
            for batch in track(batches, "Answering", disable=self.rank > 0):
                texts = self._answer([requests[number] for number in batch], session)
                for number, text in zip(batch, texts, strict=True):
                    answers[number] = text
        if self.failed:
            failures = f"{len(self.failed):,} of {len(requests):,} requests have no prompt"
            if len(self.failed) == len(requests) and self.world_size == 1:
                raise UserError(f"{failures}; the last one: {self.failed[-1]}")
            logger.warning(f"{failures}; their answers are empty and count as wrong.")
        return answers

    def _answer(self, requests: Sequence[Instance], session: Session) -> list[str]:
        """The answers to requests with the same generation arguments."""
        config = self.model.generation_config
        generation = Generation.of(requests[0].args[1], config, self.requests.max_new_tokens)
        for name in set(generation.unknown) - self.ignored:
            logger.warning(f"The generation argument {name} of {requests[0].args[4]} is ignored.")
            self.ignored.add(name)
        try:
            samples = [self._sample(request) for request in requests]
            inputs = encode_for(self.pruner, self.family, self.processor, samples).inputs
        except UnsupportedTaskError:
            raise
        except Exception as error:  # whatever is wrong with one request must not end a run
            if len(requests) > 1:
                return [text for request in requests for text in self._answer([request], session)]
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.failed.append(f"{_name(requests[0])}: {reason}")
            logger.warning(f"No prompt can be made of {self.failed[-1]}")
            return [""]
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        session.sample_ids = [sample.id for sample in samples]
        output = self.model.generate(**inputs, **generation.arguments)  # type: ignore[operator]
        answers = output[:, inputs["input_ids"].shape[1] :]
        return [generation.cut(text) for text in self.family.decode(self.processor, answers)]

    def _sample(self, request: Instance) -> Sample:
        """The question of a request, in the task's own words."""
        context, _, to_visuals, document, task, split = request.args
        visuals = to_visuals(self.task_dict[task][split][document]) or []
        check_visuals(visuals, _name(request))
        return Sample(
            id=_name(request),
            task="open_ended",
            images=tuple(map(read_visual, visuals)),
            question=context.replace(MARKER, ""),
            answer="",
            verbatim=True,
        )

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not implemented."""
        raise NotImplementedError(
            "ivcp only generates: the log-likelihood of given answers is not implemented; choose a "
            "task with output_type generate_until."
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not implemented."""
        raise NotImplementedError(
            "ivcp answers single questions: tasks of several rounds are not implemented; choose a "
            "task with output_type generate_until."
        )


def _name(request: Instance) -> str:
    return f"{request.args[4]}-{request.args[3]}"
