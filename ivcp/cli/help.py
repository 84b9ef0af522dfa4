"""The help of a command: examples, and the choices of every group with a line on each."""

from __future__ import annotations

import re
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

from ivcp import __version__
from ivcp.cli.composing import GROUPS, config_folder

ORDER = (
    "pruner", "model", "dataset", "budget", "experiment", "judge", "backend", "logger", "trainer",
    "tuned",
)  # fmt: skip
OVERLAYS = ("experiment", "tuned")
"""Groups that only an evaluation has, outside its list of defaults."""
WIDTH = 90

EXAMPLES = {
    "config": """
        Evaluate a pruning method on a dataset, or sweep over several (-m).

        ivcp run pruner=ivcp ratio=0.3                               one run, packaged model
        ivcp run -m pruner=none,ivcp,fastv ratio=0.5,0.3             a sweep
        ivcp run pruner=fastv tokens=60 budget=layer_average         as tables of papers count
        ivcp run model=qwen25vl dataset=refcoco_testA model.path=DIR data.root=DIR data.coco=DIR
        ivcp run hydra.run.dir=outputs/mine resume=true              go on where it was interrupted
        ivcp run pruner=ivcp --cfg job                               every setting, with its value
        ivcp run --hydra-help                                        Hydra's own options
        """,
    "bench": """
        Measure time and memory of models with and without pruning methods. Commas compare in one
        run. tokens= (visual tokens) or image= is the prompt, ratio= or keep_tokens= the budget.

        ivcp bench pruner=ivcp ratio=0.3                             the packaged model
        ivcp bench model=qwen25vl pruner=ivcp,fastv,none batch_size=1,8 tokens=400,1600,4096
        ivcp bench model=qwen25vl model.random=true                  random weights, published sizes
        ivcp bench model=llava15 model.reduced=true                  a few narrow layers, for a CPU
        ivcp bench hydra.run.dir=outputs/mine resume=true            go on where it was interrupted
        ivcp bench --cfg job                                         every setting, with its value
        """,
}


def help_text(config_name: str) -> str:
    """What `--help` prints.

    Args:
        config_name: The command's configuration: "config" or "bench".
    """
    lines = [f"ivcp {__version__}", textwrap.dedent(EXAMPLES[config_name])]
    text = (config_folder() / f"{config_name}.yaml").read_text(encoding="utf-8")
    for group in ORDER:
        if f"- {group}:" not in text and (config_name != "config" or group not in OVERLAYS):
            continue
        prefix = "+" if group == "experiment" else ""
        lines.append(f"{prefix}{group}=")
        for name, line in choices(group).items():
            lines.append(f"  {name:<23}" + textwrap.shorten(line, WIDTH, placeholder=" ..."))
        lines.append("")
    settings = re.findall(r"^(\w+): *(\S+) *# (.*)", text, re.MULTILINE)
    lines.append("settings, with their defaults (settings of a part: pruner.layer=4)")
    lines += [f"  {f'{name}={value}':<28} {line}" for name, value, line in settings]
    return "\n".join(lines)


def choices(group: str) -> dict[str, str]:
    """The choices of a configuration group, each with a line that says what it is."""
    found = {path.stem: first_line(path) for path in (config_folder() / group).glob("*.yaml")}
    for point in entry_points(group=GROUPS.get(group, "")):
        found.setdefault(point.name, f"of another package: {point.value}")
    return dict(sorted(found.items()))


def first_line(path: Path) -> str:
    """What a configuration file says of itself, without the command that it shows."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            said = re.split(r"[:;,.]? *(?:chosen by |part of )?python run\.py", line[1:].strip())[0]
            return said.rstrip(":;, ")
    return ""
