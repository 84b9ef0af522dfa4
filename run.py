"""Evaluate a pruning method: `python run.py model=tiny pruner=ivcp dataset=shapes ratio=0.3`."""

from ivcp.cli.run import run  # Hydra's completion looks for the text "@hydra.main" in this file

if __name__ == "__main__":
    run()
