"""Evaluate a pruning method: `python run.py model=tiny pruner=ivcp dataset=shapes ratio=0.3`."""

from pathlib import Path

from ivcp.cli import run

if __name__ == "__main__":
    run(Path(__file__).parent / "conf")
