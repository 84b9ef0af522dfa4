"""The command `ivcp`: run, report, view, bench, list, completion.

Nothing heavy is imported before a command needs it, so that help and completion come at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ivcp import __version__
from ivcp.core.errors import did_you_mean

COMMANDS = {
    "run": "evaluate a method, or sweep over several: ivcp run model=tiny pruner=ivcp ratio=0.3",
    "report": "compare finished runs in tables, plots, a page: ivcp report multirun --out report",
    "view": "look at finished runs in a browser: tables, plots, samples: ivcp view multirun",
    "bench": "measure time and memory of methods: ivcp bench pruner=ivcp,fastv tokens=400,1600",
    "list": "methods with their signals and papers, models, datasets: ivcp list pruner",
    "completion": 'completion of commands, groups and settings: eval "$(ivcp completion bash)"',
}
SHELLS = ("bash", "zsh", "fish")
HYDRA = ("-m", "--multirun", "-c", "--cfg", "-r", "--run", "--config-dir", "-cd", "--info")
"""First words of a command line without a command, as Lightning starts it in other processes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; gives the exit code.

    Args:
        arguments: The words behind `ivcp`; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        print(usage())
        return 0
    if command == "--version":
        print(f"ivcp {__version__}")
        return 0
    if command.startswith("-sc") and (line := os.environ.get("COMP_LINE")):
        return complete(words, line)
    if command.startswith(HYDRA) or "=" in command:
        return main(["run", *words])
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        print(f"ivcp has {', '.join(COMMANDS)}; got {command!r}{hint}", file=sys.stderr)
        return 2
    return _call(command, words[1:])


def _call(command: str, words: list[str]) -> int:
    if command == "report":
        from ivcp.report.__main__ import main as report

        return report(words)
    if command == "view":
        from ivcp.report.view import main as view

        return view(words)
    if command == "list":
        from ivcp.cli.catalogue import show_catalogue

        return show_catalogue(words)
    from ivcp.cli import run

    if command == "completion":
        shell = words[0] if words else "bash"
        if shell not in SHELLS:
            print(f"ivcp completion knows {', '.join(SHELLS)}; got {shell!r}.", file=sys.stderr)
            return 2
        words = ["-sc", f"install={shell}"]
    sys.argv = [sys.argv[0], *words]
    if command == "bench":
        from ivcp.cli.bench_command import bench

        bench()
        return 0
    run.run()
    return 0


def complete(words: list[str], line: str) -> int:
    """Print what can follow a line of the shell: a command, or what Hydra knows of one.

    Args:
        words: The request, in Hydra's form.
        line: What has been typed.
    """
    typed = line.split()[1:]
    command = typed[0] if typed else ""
    if command in ("run", "bench") and line.split(command, 1)[1]:
        os.environ["COMP_LINE"] = line.replace(f" {command} ", " ", 1)
        return _call(command, words)
    if len(typed) <= 1:
        print(" ".join(name for name in COMMANDS if name.startswith(command)))
    return 0


def usage() -> str:
    """What `ivcp --help` prints."""
    lines = (f"  {name:<12}{text}" for name, text in COMMANDS.items())
    return "\n".join(
        [
            f"ivcp {__version__}: vision-token pruning for large vision-language models",
            "",
            "usage: ivcp COMMAND ...",
            "",
            *lines,
            "",
            "ivcp run --help lists the choices of every group.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
