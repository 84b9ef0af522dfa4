"""Put a trained model into the package: `python -m recipes.tiny.export RUN_FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ivcp.models.qwen25vl import PACKAGED


def main() -> None:
    """Copy the Hugging Face folder of a run over the packaged one; the model card stays."""
    source = Path(sys.argv[1]) / "model"
    PACKAGED.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        shutil.copy(path, PACKAGED / path.name)
        print(f"{path.stat().st_size:>10} {path.name}")


if __name__ == "__main__":
    main()
