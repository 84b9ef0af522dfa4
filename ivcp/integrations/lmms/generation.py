"""From the generation arguments of a task to those of `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SAMPLING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True)
class Generation:
    """How the answers of a batch are generated.

    Attributes:
        arguments: Keyword arguments of `generate`.
        until: Texts before which an answer ends.
        unknown: Arguments of the task that `generate` does not know.
    """

    arguments: dict[str, Any]
    until: tuple[str, ...]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, task_kwargs: Mapping[str, Any], config: Any, max_new_tokens: int) -> Generation:
        """From the generation arguments of a task.

        Answers are greedy unless `do_sample` is set, or left out beside a temperature; a
        temperature of 0 is always greedy.

        Args:
            task_kwargs: The task's `generation_kwargs`.
            config: The model's generation configuration, which knows every argument.
            max_new_tokens: Longest answer, if the task names none.
        """
        rest = dict(task_kwargs)
        until = rest.pop("until", None) or ()
        until = (until,) if isinstance(until, str) else tuple(until)
        temperature = rest.get("temperature")
        sampled = bool(rest.get("do_sample", temperature)) and temperature != 0
        unknown = tuple(name for name in rest if not hasattr(config, name))
        dropped = unknown if sampled else (*unknown, *SAMPLING)
        arguments = {name: value for name, value in rest.items() if name not in dropped}
        arguments["do_sample"] = sampled
        if arguments.get("max_new_tokens") is None:
            arguments["max_new_tokens"] = max_new_tokens
        return cls(arguments, tuple(filter(None, until)), unknown)

    def cut(self, text: str) -> str:
        """The text before the first of `until`.

        >>> Generation({}, ("?", "."), ()).cut("Yes. No?")
        'Yes'
        """
        for stop in self.until:
            text = text.split(stop)[0]
        return text
